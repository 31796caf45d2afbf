"""How good the floor is (every block skipped whole), by itself: trained alike for many choices of static layers.

What a floor loses decides how fast a policy can be made: depth that varies can win only below the least floor that
loses nothing. Each combination of static layers and kind of adapter has one adapter a block and becomes a DySL folder,
which :data:`PARAMETERS` runs at the floor.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dysl_vla_ros.comparison.floor_records import RESULT
from dysl_vla_ros.distillation import stage_report
from dysl_vla_ros.distillation.activations import Activations
from dysl_vla_ros.distillation.initial_weights import new_modules
from dysl_vla_ros.distillation.resume import Resume
from dysl_vla_ros.distillation.stages import Distillation, DistillationSettings
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import write_json
from dysl_vla_ros.policies.interface import VlaPolicy
from dysl_vla_ros.runtime.folder import UNCALIBRATED
from dysl_vla_ros.skipping.importance import informative_static, spread_static
from dysl_vla_ros.skipping.partition import LayerPartition

PARAMETERS = "floor.yaml"
PARAMETER_FILE = """\
# Every block skipped whole at every step, for folders that `dysl_vla floors` wrote.
/**:
  ros__parameters:
    skipping.threshold: 0.0
    guidance.prior: false
    guidance.verify: false
    guidance.warmup: 0
"""

RUN_BY_PARAMETERS = {"guidance": UNCALIBRATED, "actions_per_inference": 1}


@dataclass(frozen=True)
class Floor:
    """One combination."""

    choices: tuple[str, ...]  # `informative`, `spread`, or both where they come to the same layers
    static: tuple[int, ...]
    adapter: str  # `token` or `pooled`

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.choices[0]}-{len(self.static)}-{self.adapter}"

    def partition(self, num_layers: int) -> LayerPartition:
        """Return its partition: one adapter a block."""
        return LayerPartition(num_layers, self.static, "first")


def combinations(
    similarity: Sequence[float], counts: Sequence[int], choices: Sequence[str], adapters: Sequence[str]
) -> list[Floor]:
    """Return every combination once, fewest layers first.

    Raises:
        SettingError: a count is none of this stack.
    """
    own = torch.tensor(similarity, dtype=torch.float64).numpy()
    found: list[Floor] = []
    for count in sorted(set(counts)):
        static = {"informative": informative_static(own, count), "spread": spread_static(len(own), count)}
        for layers in dict.fromkeys(static[choice] for choice in choices):
            names = tuple(choice for choice in dict.fromkeys(choices) if static[choice] == layers)
            found += [Floor(names, layers, adapter) for adapter in dict.fromkeys(adapters)]
    return found


def train_floor(
    floor: Floor,
    policy: VlaPolicy,
    data: Activations,
    held_out: Activations,
    settings: DistillationSettings,
    sizes: dict[str, int],
    folder: Path,
) -> dict[str, Any]:
    """Train one floor, or go on behind its last finished stage; write its DySL folder and return its record.

    Args:
        floor: the combination.
        policy: the teacher.
        data: what it did, with the inputs that the partition needs.
        held_out: the same of frames to judge by.
        settings: of stage 1; ``floor_share`` 1.0 trains nothing but the floor.
        sizes: of the modules; ``queries`` holds for pooled adapters.
        folder: the DySL folder.
    """
    partition = floor.partition(len(policy.layers))
    own_sizes = sizes | {"queries": sizes["queries"] if floor.adapter == "pooled" else 0}
    torch.manual_seed(settings.seed)
    initial = new_modules(partition, policy, own_sizes, floor.choices[0])
    job = Distillation(partition, initial.modules.to(policy.device), data, settings, held_out)
    plan = [asdict(settings), own_sizes, list(floor.static), policy.weights_hash]
    resume = Resume(folder, plan, data.actions)
    records = stage_report.run_stages(stage_report.stages_of(job)[:2], resume, initial.modules)
    report = stage_report.write_folder(folder, job, records, initial, calibration=RUN_BY_PARAMETERS)
    resume.remove()
    return {
        "name": floor.name,
        "choices": list(floor.choices),
        "static": list(floor.static),
        "layers": len(floor.static),
        "adapter": floor.adapter,
        "floor_error": records[-1]["floor_error"],
        "reconstruction": records[0]["reconstruction"],
        **{name: report[name] for name in ("training_steps", "training_seconds", "trainable_parameters")},
    }


class Progress:
    """What is finished, in ``floors.json``."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        """Read it; ``plan`` is all (plain values) that a floor's figures depend on, but for the combination.

        Raises:
            DataError: the one that is there is damaged, or belongs to another plan.
        """
        self._path = folder / RESULT
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()
        self.values: dict[str, Any] = {
            "belongs_to": digest, "plan": plan, "similarity": None, "floors": {}, "full_depth": None,
        }  # fmt: skip
        mend = "name another folder for --out, or delete that file to begin anew"
        try:
            kept = json.loads(self._path.read_text(encoding="utf-8"))
            if kept["belongs_to"] != digest:
                names = ", ".join(n for n in kept["plan"] | plan if kept["plan"].get(n) != plan.get(n))
                raise DataError(f"{self._path} holds floors made with other {names}; {mend}")
            self.values |= {name: kept[name] for name in ("similarity", "floors")} | kept
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{self._path} cannot be read: {error!r}; {mend}") from error

    def finished(self, floor: Floor) -> dict[str, Any] | None:
        """Return the record of these layers and adapters, None where they are still to be trained."""
        for record in self.values["floors"].values():
            if record["static"] == list(floor.static) and record["adapter"] == floor.adapter:
                there = (self._path.parent / record["name"] / "config.json").exists()
                return dict(record) if there else None
        return None

    def keep(self, **values: Any) -> None:
        """Put in values of the whole."""
        self.values |= values
        write_json(self._path, self.values)

    def keep_floor(self, record: dict[str, Any]) -> None:
        """Put in a floor's record."""
        self.values["floors"][record["name"]] = record
        write_json(self._path, self.values)

"""The model hash names all in the files that decides the motion, and nothing else; what no arm can mean is refused.

The same hash stands in ``~/skip_report``, ``/diagnostics``, ``dysl_vla inspect`` and ``replay.json``.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.policies.action_statistics import LARGEST_ANGULAR_SPEED, LARGEST_LINEAR_SPEED, action_faults
from dysl_vla_ros.runtime.step import Runtime
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl, tiny_config

SHIPPED = Path(__file__).parents[1] / "checkpoints"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = make_tiny_checkpoint(tmp_path / "base")
    make_tiny_dysl(folder / "dysl", folder)
    return folder


def edit(path: Path, change: Change) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def model_hash(checkpoint: Path) -> str:
    return Runtime.load(str(checkpoint), "").description.model_hash


def item(*keys: Any, to: Any) -> Change:
    def change(values: dict[str, Any]) -> None:
        for key in keys[:-1]:
            values = values[key]
        values[keys[-1]] = to

    return change


MOVES: dict[str, tuple[str, Change]] = {
    "centre of z": ("config.json", item("model", "action", "center", 2, to=0.1)),
    "scale": ("config.json", item("model", "action", "scale", 0, to=0.0126)),
    "time step": ("config.json", item("model", "action", "time_step", to=0.051)),
    "frame of actions": ("config.json", item("model", "action", "frame", to="tool")),
    "words exchanged": ("config.json", item("model", "vocabulary", to=["the", "push", "puck", "open", "drawer"])),
    "proprioception's mean": ("config.json", item("model", "proprioception_mean", 1, to=0.7)),
    "proprioception's deviation": ("config.json", item("model", "proprioception_std", 1, to=0.2)),
    "proprioception's order": (
        "config.json", item("model", "proprioception", "names", to=["ee.y", "ee.x", "ee.z", "gripper.opening"])
    ),
    "cameras exchanged": ("config.json", item("model", "cameras", to={"wrist_image": 48, "image": 96})),
    "heads": ("config.json", item("model", "heads", to=4)),
    "guidance's step": ("dysl/calibration.json", item("guidance", "step", to=0.11)),
    "guidance's threshold": ("dysl/calibration.json", item("guidance", "verify_threshold", to=0.06)),
    "guidance's dead band": ("dysl/calibration.json", item("guidance", "dead_band", to=0.01)),
    "guidance's stride": ("dysl/calibration.json", item("guidance", "stride", to="paper")),
    "which falls are verified": ("dysl/calibration.json", item("guidance", "verify_on", to="first")),
    "guidance's warm-up": ("dysl/calibration.json", item("guidance", "warmup", to=3)),
}  # fmt: skip
SAYS: dict[str, tuple[str, Change]] = {
    "the order of keys": ("config.json", lambda config: config.update(model=dict(reversed(config["model"].items())))),
    "training": ("config.json", item("training", to={"steps": 7})),
    "guidance's step as written": ("dysl/calibration.json", item("guidance", "step", to=0.10)),
    "figures": ("dysl/calibration.json", lambda values: values.update(runs=50, inferences=2796)),
    "release": ("dysl/config.json", item("package_version", to="9.9")),
    "how static layers were chosen": ("dysl/config.json", item("partition", "choice", to="informative")),
}


@pytest.mark.parametrize("what", MOVES)
def test_what_decides_the_motion_is_in_the_hash(checkpoint: Path, what: str) -> None:
    before = model_hash(checkpoint)
    name, change = MOVES[what]
    edit(checkpoint / name, change)
    assert model_hash(checkpoint) != before


@pytest.mark.parametrize("what", SAYS)
def test_what_the_files_say_beside_is_not(checkpoint: Path, what: str) -> None:
    before = model_hash(checkpoint)
    name, change = SAYS[what]
    edit(checkpoint / name, change)
    assert model_hash(checkpoint) == before


def test_other_weights_other_adapters_and_none_are_other_models(checkpoint: Path, tmp_path: Path) -> None:
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    adapters = make_tiny_dysl(tmp_path / "adapters", checkpoint, seed=1)
    found = [
        Runtime.load(str(checkpoint), ""),
        Runtime.load(str(checkpoint), str(adapters)),
        Runtime.load_base(checkpoint),
        Runtime.load_base(other),
    ]
    assert len({runtime.description.model_hash for runtime in found}) == len(found)
    assert len({runtime.description.weights_hash for runtime in found}) == 2


@pytest.mark.parametrize(
    ("base", "adapters"),
    [("reference", "reference/dysl"), ("reference", "compared/dysl_paper"), ("board", "")],
)
def test_what_is_shipped_belongs_together_by_the_hash_of_the_weights(base: str, adapters: str) -> None:
    runtime = Runtime.load(str(SHIPPED / base), str(SHIPPED / adapters) if adapters else "")
    written = json.loads((SHIPPED / base / "config.json").read_text())["files"]["model.safetensors"]
    assert runtime.description.weights_hash == written != runtime.description.model_hash


def test_the_command_names_the_key_of_statistics_that_no_arm_can_mean(
    checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkpoint / "config.json", item("model", "action", "center", 2, to=0.3))
    assert main(["inspect", str(checkpoint)]) == 2
    said = capsys.readouterr().err
    assert f"{checkpoint / 'config.json'}: model.action.center[2] 0.3 and scale[2] 0.0125" in said
    assert "6.25 m/s of z" in said and "no arm moves faster than 5 m/s" in said


ROTATING = tiny_config(rotation=True).action


@given(index=st.integers(0, 5), center=st.floats(-10, 10), scale=st.floats(1e-6, 10), time_step=st.floats(0.01, 1.0))
def test_the_bounds_are_those_of_centre_and_scale_over_the_time_step(
    index: int, center: float, scale: float, time_step: float
) -> None:
    """Of every value of an action, either way: the fixed bound, whatever a user's own limit is."""
    spec = with_statistics(index, center, scale, time_step)
    bound = LARGEST_LINEAR_SPEED if index < 3 else LARGEST_ANGULAR_SPEED
    fast = max(abs(center + scale), abs(center - scale)) / time_step
    if abs(fast - bound) < 1e-3:
        return
    named = any(f"action.center[{index}]" in fault for fault in action_faults(spec))
    assert named is (fast > bound)


@pytest.mark.parametrize("scale", [0.0, -0.01, float("nan"), float("inf")])
@pytest.mark.parametrize("index", range(7))
def test_a_scale_that_is_not_above_zero_or_not_finite_is_refused(index: int, scale: float) -> None:
    assert any(f"action.scale[{index}]" in fault for fault in action_faults(with_statistics(index, 0.0, scale, 0.05)))


@pytest.mark.parametrize(("center", "scale"), [(50.0, 50.0), (-1.8, 0.5), (0.5, 2.0)])
def test_statistics_of_millimetres_are_no_openings(center: float, scale: float) -> None:
    assert any("no gripper's" in fault for fault in action_faults(with_statistics(6, center, scale, 0.05)))


def with_statistics(index: int, center: float, scale: float, time_step: float) -> ActionSpec:
    """Return the statistics of a turning hand, slow but for one value."""
    centers, scales = [0.0] * 6 + [0.5], [0.001] * 6 + [0.5]
    centers[index], scales[index] = center, scale
    return dataclasses.replace(ROTATING, time_step=time_step, center=tuple(centers), scale=tuple(scales))

"""Whatever stands in a JSON file of a checkpoint or DySL folder: it loads and steps, or one line names file and key."""

import copy
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.doctor.checks import checkpoint as checks
from dysl_vla_ros.doctor.examination import Examination, Options
from dysl_vla_ros.doctor.finding import Level
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import RuntimeSettings
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

MISSING = object()
REPLACEMENTS = (None, True, -1, 1e308, "x", [], {}, MISSING)
FILES = ("config.json", "dysl/config.json", "dysl/calibration.json", "dysl/distillation.json")
GUIDANCE = {
    "step": 0.1, "verify_threshold": 0.05, "dead_band": 0.0, "stride": "integral", "verify_on": "any", "warmup": 2,
}  # fmt: skip
TRIAL = {
    "tolerated_error": 0.06, "layers": 2.0, "error": 0.02, "worst_error": 0.1, "verified_share": 0.0,
    "guidance": GUIDANCE,
}  # fmt: skip
CALIBRATION = {
    "guidance": GUIDANCE,
    "actions_per_inference": 1,
    "runs": 5,
    "inferences": 300,
    "chosen": TRIAL,
    "front": [TRIAL],
    "signals": {"-C": {"rank_correlation": 0.2, "worst_tenth_caught": 0.3}},
}
DISTILLATION = {"training_steps": 10, "training_seconds": 1.5, "settings": {"seed": 0}, "stages": [{"loss": 0.1}]}
TRAINING = {"steps": 10, "seconds": 1.5}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its DySL folder as commands write them, with all that they may say."""
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("whole") / "base", layers=3)
    make_tiny_dysl(folder / "dysl", folder)
    for name in ("config.json", "dysl/config.json"):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(values | {"training": TRAINING | {"base_steps": 3, "base_seconds": 2}}))
    (folder / "dysl" / "calibration.json").write_text(json.dumps(CALIBRATION))
    (folder / "dysl" / "distillation.json").write_text(json.dumps(DISTILLATION))
    return folder


def keys_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Return the paths to all values inside; of a list to its first."""
    items = value.items() if isinstance(value, dict) else list(enumerate(value))[:1] if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from keys_of(item, (*path, key))


def replaced(values: Any, path: tuple[Any, ...], by: Any) -> Any:
    values = copy.deepcopy(values)
    place = values
    for key in path[:-1]:
        place = place[key]
    if by is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = by
    return values


def steps(folder: Path) -> bool:
    """Tell whether what loads also gives actions."""
    runtime = Runtime.load(str(folder), "")
    policy = runtime.policy
    image = np.zeros((96, 96, 3), np.uint8)
    seen = Observation(
        dict.fromkeys(policy.cameras, image), np.zeros(len(policy.proprioception.names), np.float32), INSTRUCTION
    )
    played = np.zeros((0, policy.action.dimensions), np.float32)
    return bool(np.isfinite(runtime.step(seen, played, RuntimeSettings()).chunk.actions).all())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow, id="all"), pytest.param(8, id="one a key")])
def test_every_value_of_another_kind_is_taken_or_refused_by_file_and_key(
    every: int, name: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through the command that loads as the worker does; no exception but one that is one line."""
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    values = json.loads((folder / name).read_text())
    faults, refused = [], 0
    for number, path in enumerate(keys_of(values)):
        for by in REPLACEMENTS[number % every :: every]:
            shown = f"{'.'.join(map(str, path))} = {'missing' if by is MISSING else by!r}"
            (folder / name).write_text(json.dumps(replaced(values, path, by)))
            try:
                code = main(["inspect", str(folder), "--steps", "0", "--threads", "1"])
                said = capsys.readouterr().err.strip()
                key = next(key for key in reversed(path) if isinstance(key, str))
                if path[0] == "files" and by is MISSING:
                    key = "files"  # which weights there must be is not known before the family is
                if code == 0:
                    if name in FILES[:2] and not steps(folder):
                        faults.append(f"{shown}: gives no finite action")
                    continue
                refused += 1
                if "\n" in said or key not in said or name not in said:
                    faults.append(f"{shown}: {said}")
            except Exception as error:  # the law is that there is none
                faults.append(f"{shown}: {type(error).__name__}: {error}")
    assert not faults, "\n".join(faults)
    assert refused or name == "dysl/distillation.json", "nothing was refused: nothing is tested"


@pytest.mark.parametrize("name", FILES[:2])
def test_the_doctor_fails_where_the_command_refuses(name: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "copy"))
    values = json.loads((folder / name).read_text())
    examination = Examination(Options(checkpoint=folder))
    for number, key in enumerate(values):
        for by in REPLACEMENTS[number % 4 :: 4]:
            (folder / name).write_text(json.dumps(replaced(values, (key,), by)))
            refused = False
            try:
                Runtime.load(str(folder), "")
            except CheckpointError:
                refused = True
            findings = [*checks.base(examination), *checks.dysl_folder(examination)]
            assert any(finding.level is Level.FAIL for finding in findings) is refused, (key, by, findings)

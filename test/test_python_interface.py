"""What the commands do can be called: names that load nothing until they are used, and the commands' own bits."""

import ast
import importlib
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import dysl_vla_ros
from dysl_vla_ros import CalibrateSettings, DistillSettings, TuneSettings, calibrate, distill
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings
from dysl_vla_ros.errors import CheckpointError, DataError, SettingError
from dysl_vla_ros.recordings.source import Choice
from dysl_vla_ros.runtime.step import Runtime
from test_devices import ABSENT, needs_gpu
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

SHORT = ("--observations", "40", "--hidden-steps", "6", "--action-steps", "6", "--joint-steps", "6")
STAGES = DistillationSettings(hidden_steps=6, action_steps=6, joint_steps=6)
COMING = {"evaluate": "dysl_vla_ros.evaluation.evaluate", "replay": "dysl_vla_ros.replay.job"}


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "bag"
    return write_tiny_bag(folder, ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)


@pytest.mark.parametrize("name", dysl_vla_ros.__all__)
def test_every_name_that_is_exported_is_there(name: str) -> None:
    assert name in dir(dysl_vla_ros)
    if name in COMING:
        try:
            there = hasattr(importlib.import_module(COMING[name]), name)
        except ModuleNotFoundError:
            there = False
        if not there:
            pytest.skip(f"{COMING[name]}.{name} is still to come")
    assert callable(getattr(dysl_vla_ros, name))


def test_type_checkers_see_what_is_imported_when_it_is_used() -> None:
    tree = ast.parse(Path(dysl_vla_ros.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    told = {name.name: node.module for node in block.body if isinstance(node, ast.ImportFrom) for name in node.names}
    found = {name: f"dysl_vla_ros.{module}" for name, module in dysl_vla_ros._FOUND_IN.items()}
    assert told == found | {"replay": "dysl_vla_ros.replay.job"}
    assert set(told) == set(dysl_vla_ros.__all__)


def test_importing_the_package_loads_neither_torch_nor_ros_and_its_settings_do_not_either() -> None:
    code = (
        "import sys, dysl_vla_ros; first = set(sys.modules); dysl_vla_ros.DistillSettings(); "
        "print([n for n in first if n.startswith('dysl_vla_ros.')], {'torch', 'rclpy', 'mujoco'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True,
        cwd=Path(dysl_vla_ros.__file__).parents[1],
    )  # fmt: skip
    assert done.stdout.split() == ["[]", "set()"]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'destill'"):
        dysl_vla_ros.destill  # noqa: B018


def test_the_package_replay_is_the_function_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from dysl_vla_ros.replay import job

    monkeypatch.setattr(job, "replay", lambda bag, **more: (bag, more), raising=False)
    assert dysl_vla_ros.replay("a bag", every=2) == ("a bag", {"every": 2})
    assert dysl_vla_ros.replay.job is job


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TuneSettings(), "one of --target-ms and --max-deviation"),
        (lambda: TuneSettings(target_ms=1.0, max_deviation=1.0), "and only one"),
        (lambda: TuneSettings(target_ms=-1.0, trials=3), "--trials must be 10 or more, not 3; --target-ms must be"),
        (lambda: ModuleSettings(bottleneck=0, queries=-1), "--bottleneck must be at least 1, not 0; --queries"),
    ],
)
def test_settings_that_make_no_sense_are_refused_all_faults_at_once(make, said: str) -> None:
    with pytest.raises(DataError, match=said):
        make()


def test_what_the_user_says_of_a_recording_is_typed_as_it_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    from dysl_vla_ros.commands.data_options import recording_choice
    from dysl_vla_ros.commands.main import build_parser

    words = ["--topic", "image:=/a b", "--instruction", "push it", "--stamps", "received", "--frame", "base_link:=base"]
    parser = build_parser({"replay": importlib.import_module("dysl_vla_ros.commands.main").VERBS["replay"]}, "replay")
    choice = recording_choice(vars(parser.parse_args(["replay", "bag", *words])))
    assert shlex.split(choice.as_options()) == words
    assert Choice().as_options() == ""


@pytest.mark.parametrize(
    "words",
    [
        ["calibrate", "BASE", "BAG"],
        ["distill", "BASE", "BAG"],
        ["tune", "BAG", "--checkpoint", "BASE"],
        ["floors", "BASE", "BAG"],
    ],
)
def test_a_device_that_is_not_there_is_refused_before_any_work(words, bag, tmp_path, capsys) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base")
    (checkpoint / "dysl").mkdir()
    (checkpoint / "dysl" / "static_layers.json").write_text("{}")
    line = [{"BASE": str(checkpoint), "BAG": str(bag)}.get(word, word) for word in words]
    line += ["--target-ms", "5"] if words[0] == "tune" else []
    line += ["--out", str(tmp_path / "out")] if words[0] in ("tune", "floors") else []
    assert main([*line, "--device", ABSENT]) == 2
    assert f"--device is '{ABSENT}', this machine has cpu" in capsys.readouterr().err
    assert main([*line, "--device", "gpu"]) == 2
    assert "--device must be cpu, cuda or cuda:N" in capsys.readouterr().err
    assert sorted(path.name for path in (checkpoint / "dysl").iterdir()) == ["static_layers.json"]
    assert not (tmp_path / "out").exists()
    with pytest.raises(SettingError, match="this machine has cpu"):
        dysl_vla_ros.load(checkpoint, device=ABSENT)


@pytest.mark.slow
def test_distill_ends_at_its_folder_which_nobody_runs_until_it_is_calibrated(bag, tmp_path, capsys) -> None:
    """By functions and by the command, which goes on to calibrate: the same bits."""
    by_hand, at_once = (make_tiny_checkpoint(tmp_path / name, layers=6) for name in ("hand", "once"))
    calibrate(by_hand, bag, settings=CalibrateSettings(static="spread", observations=40))
    made = distill(str(by_hand), [bag], settings=DistillSettings(observations=40, stages=STAGES))
    assert made.folder == by_hand / "dysl" and not (made.folder / "calibration.json").exists()
    assert [stage["steps"] for stage in made.report["stages"]] == [6, 6, 6]
    with pytest.raises(CheckpointError, match=f"run `dysl_vla calibrate .*--adapters {made.folder}"):
        Runtime.load(str(by_hand), "")
    found = calibrate(by_hand, bag)
    assert found.best in found.front and found.num_layers == 6
    dysl_vla_ros.load(by_hand).warm_up()

    assert main(["calibrate", str(at_once), str(bag), "--static", "spread", "--observations", "40"]) == 0
    assert main(["distill", str(at_once), str(bag), *SHORT, "--no-compile"]) == 0
    said = capsys.readouterr().out
    assert f"written: {at_once / 'dysl'}; now its thresholds" in said and "chosen: " in said
    for name in ("adapters.safetensors", "calibration.json"):
        one, other = ((base / "dysl" / name).read_bytes() for base in (by_hand, at_once))
        assert one == other, name
    assert main(["distill", str(at_once), str(bag), *SHORT, "--no-compile", "--no-calibrate"]) == 0
    said = capsys.readouterr().out
    assert f"next: dysl_vla calibrate {at_once} {bag} --adapters {at_once / 'dysl'}" in said and "chosen" not in said
    assert not (at_once / "dysl" / "calibration.json").exists(), "thresholds of other adapters"


@needs_gpu
def test_what_is_trained_on_a_gpu_lives_there_and_runs_on_a_cpu(bag, tmp_path) -> None:
    checkpoint = make_tiny_checkpoint(tmp_path / "base", layers=6)
    calibrate(checkpoint, bag, settings=CalibrateSettings(observations=40, device="cuda"))
    made = distill(checkpoint, bag, settings=DistillSettings(observations=40, stages=STAGES, device="cuda"))
    assert made.report["stages"][-1]["floor_error"] < 1.0
    assert calibrate(checkpoint, made.data, settings=CalibrateSettings(device="cuda")).best.layers <= 6
    dysl_vla_ros.load(checkpoint, device="cpu").warm_up()

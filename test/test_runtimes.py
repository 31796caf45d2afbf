"""`--runtime onnx`: the same methods with the exported graphs, without torch, and never taken for the other runtime."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dysl_vla_ros.commands.main import VERBS, main
from dysl_vla_ros.commands.runtime_option import engine_choice
from dysl_vla_ros.comparison.compare import ComparisonSettings, compare
from dysl_vla_ros.comparison.methods.registry import METHODS, read_word
from dysl_vla_ros.comparison.plan import Entry, entries_named
from dysl_vla_ros.engines import ONNX, TORCH
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
from dysl_vla_ros.errors import DataError, DyslVlaError, SettingError
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.params_file import params_text, read_params_file
from dysl_vla_ros.settings import AUTOMATIC
from dysl_vla_ros.simulation.tasks import tasks_named
from floor_records import write_floors
from onnx_exports import LAYERS, make_exported
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl
from torchless_worker import torchless_python

pytest.importorskip("mujoco")
pytestmark = pytest.mark.filterwarnings("ignore::tqdm.TqdmExperimentalWarning")
OF_TIME = ("_ms", "seconds", "speedup")
SHORT = EvaluationSettings(max_ticks=6, seeds=1, tasks=tuple(tasks_named(["reach"])))
ON_ONNX = ["--runtime", "onnx"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bag(
        tmp_path_factory.mktemp("bag") / "one", ticks=16, episodes=(INSTRUCTION, "open the drawer") * 2
    )


@pytest.fixture(scope="module")
def compared(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every method of the registry on both runtimes."""
    folder = tmp_path_factory.mktemp("compared")
    shallow = make_tiny_checkpoint(folder / "shallow", 3)
    export_checkpoint(shallow)
    floors = folder / "floors"
    make_tiny_dysl(floors / "small", checkpoint)
    export_checkpoint(checkpoint, str(floors / "small"))
    write_floors(floors, {"small": (4, {"reach": "1"})}, {"reach": "1"})
    settings = ComparisonSettings(
        methods=tuple(word for name in METHODS for word in (name, f"{name}:onnx")),
        evaluation=SHORT,
        checkpoints=dict.fromkeys(("shallow", "shallow_distilled"), str(shallow)),
        floors=str(floors),
        depth=6.0,
        calibration_seeds=1,
    )
    return dict(compare(checkpoint, settings, folder / "out").table)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_played_alike_on_both_runtimes(method: str, compared: dict[str, Any]) -> None:
    ours, theirs = (
        next(row for row in compared["methods"] if (row["method"], row["runtime"]) == (method, runtime))
        for runtime in (TORCH, ONNX)
    )
    counted = [name for name in ours if name != "runtime" and not any(part in name for part in OF_TIME)]
    assert {name: ours[name] for name in counted} == {name: theirs[name] for name in counted}
    assert theirs["trainable_parameters"] is not None
    (pair,) = (row for row in compared["runtimes"] if row["method"] == method)
    assert (pair["difference"], pair["apart"], pair["episodes"], pair["same_layers_share"]) == (0.0, 0, 1, 1.0)


def test_a_word_says_method_actions_and_runtime() -> None:
    assert read_word("dysl@auto:onnx") == ("dysl", AUTOMATIC, "onnx")
    given = entries_named(("dysl", "dysl:torch", "dysl@4:onnx", "dysl:onnx"), runtime=ONNX)
    assert [entry.label for entry in given] == ["dysl:onnx", "dysl", "dysl@4:onnx"]
    assert given[2].full == Entry("full", 4, ONNX), "the speed-up is over full depth on the same runtime"
    with pytest.raises(DataError, match="'dysl:cuda': behind the colon stands what computes, torch or onnx"):
        read_word("dysl:cuda")
    with pytest.raises(SettingError, match="the runtime is 'tensorrt', expected torch or onnx"):
        EngineChoice("tensorrt")


def test_what_is_typed_comes_before_the_parameter_file_and_takes_nothing_of_the_other_runtime(tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(params_text({"model.runtime": ONNX, "model.export": "somewhere"}, ""))
    assert engine_choice("", "", params) == EngineChoice(ONNX, "somewhere")
    assert engine_choice(ONNX, "elsewhere", params) == EngineChoice(ONNX, "elsewhere")
    assert engine_choice(TORCH, "", params) == EngineChoice(TORCH)
    assert engine_choice("", "") == EngineChoice(TORCH) and engine_choice("", "", default=ONNX) == EngineChoice(ONNX)


def test_a_run_is_not_gone_on_with_by_another_runtime(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["evaluate", str(checkpoint), "--tasks", "reach", "--seeds", "1", "--max-ticks", "2", "--methods", "full"]
    line += ["--out", str(tmp_path / "out"), "--jobs", "1", "--calibration-seeds", "0"]
    assert main([*line, *ON_ONNX]) == 0
    assert main(line) == 2
    assert 'methods was ["full:onnx"], now ["full"]' in capsys.readouterr().err
    again = make_exported(tmp_path / "again", offset=1.0)
    shutil.copytree(again, tmp_path / "other")
    line[1] = str(tmp_path / "other")
    assert main([*line, *ON_ONNX]) == 2
    assert "export was" in capsys.readouterr().err, "another export plays other graphs"


def run_without_torch(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    """Run a verb in a Python without torch."""
    python = torchless_python(folder)
    line = [python, "-m", "dysl_vla_ros.commands.main", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=240, check=False)


def test_evaluate_on_onnx_runtime_needs_no_torch_and_says_the_runtime(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", checkpoint, "--tasks", "reach", "--seeds", "1", "--max-ticks", "6", "--jobs", "1"]
    done = run_without_torch(tmp_path, *words, *ON_ONNX, "--json", tmp_path / "onnx.json")
    assert done.returncode == 0 and "computed by onnx" in " ".join(done.stdout.split()), done.stderr + done.stdout
    assert main([*map(str, words), "--json", str(tmp_path / "torch.json")]) == 0
    ours, theirs = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("torch", "onnx"))
    assert (ours.pop("runtime"), theirs.pop("runtime")) == (TORCH, ONNX)
    assert without_times(ours) == without_times(theirs)


def without_times(values: Any) -> Any:
    if isinstance(values, dict):
        return {
            name: without_times(own)
            for name, own in values.items()
            if name != "timings" and not any(part in name for part in OF_TIME)
        }
    return [without_times(own) for own in values] if isinstance(values, list) else values


def test_methods_on_onnx_runtime_need_no_torch(checkpoint: Path, tmp_path: Path) -> None:
    words = ["evaluate", checkpoint, "--tasks", "reach", "--seeds", "1", "--max-ticks", "4", "--jobs", "1", *ON_ONNX]
    words += ["--methods", "full", "dysl", "fixed", "random", "oracle", "--out", tmp_path / "out"]
    done = run_without_torch(tmp_path, *words, "--calibration-seeds", "1")
    assert done.returncode == 0, done.stderr
    assert "dysl:onnx" in done.stdout and "fixed:onnx" in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["evaluate", "BASE"],
        ["evaluate", "BASE", "--methods", "full:torch", "dysl:onnx"],
        ["evaluate", "BASE", "--params", "PARAMS", "--runtime", "torch"],
        ["replay", "BAG", "--checkpoint", "BASE"],
        ["tune", "BAG", "--checkpoint", "BASE", "--target-ms", "5"],
        ["demo", "--runtime", "torch"],
        ["train", "BASE", "OUT"],
        ["calibrate", "BASE", "BAG"],
        ["floors", "BASE", "BAG", "--out", "OUT"],
        ["distill", "BASE", "BAG"],
        ["export", "BASE"],
        ["inspect", "BASE"],
    ],
    ids=lambda words: f"{words[0]}-{len(words)}",
)
def test_what_needs_torch_is_refused_without_it_and_names_the_command(
    words: list[str], checkpoint: Path, bag: Path, tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(params_text({"model.runtime": ONNX}, ""))
    places = {"BASE": checkpoint, "BAG": bag, "PARAMS": params, "OUT": tmp_path / "out"}
    done = run_without_torch(tmp_path, *(places.get(word, word) for word in words))
    assert done.returncode == 2, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "error" in line)
    assert line.startswith(f"dysl_vla {words[0]}: error: torch is not installed here")
    assert "make setup-training" in line and words[0] in VERBS


def test_a_checkpoint_that_was_not_exported_is_refused_with_the_command(
    tmp_path: Path, bag: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = make_tiny_checkpoint(tmp_path / "bare", LAYERS)
    make_tiny_dysl(tmp_path / "dysl", bare)
    for line, command in (
        (["evaluate", str(bare)], f"dysl_vla export {bare}`"),
        (["evaluate", str(bare), "--methods", "full"], f"dysl_vla export {bare}`"),
        (["evaluate", str(bare), "--adapters", str(tmp_path / "dysl")], f"export {bare} --dysl {tmp_path / 'dysl'}`"),
        (["replay", str(bag), "--checkpoint", str(bare)], f"dysl_vla export {bare}`"),
        (["tune", str(bag), "--checkpoint", str(bare), "--target-ms", "5"], f"dysl_vla export {bare}`"),
        (["demo", "--checkpoint", str(bare)], f"dysl_vla export {bare}`"),
    ):
        assert main([*line, *ON_ONNX]) == 2
        said = capsys.readouterr().err
        assert "was not exported for ONNX Runtime" in said and command in said
    assert main(["evaluate", str(bare), "--export", "somewhere"]) == 2
    assert "--export somewhere is of ONNX Runtime: add --runtime onnx" in capsys.readouterr().err


def test_a_method_of_another_checkpoint_without_an_export_is_refused_before_anything_is_played(
    checkpoint: Path, tmp_path: Path
) -> None:
    shallow = str(make_tiny_checkpoint(tmp_path / "shallow", 3))
    settings = ComparisonSettings(("full:onnx", "shallow:onnx"), SHORT, checkpoints={"shallow": shallow})
    with pytest.raises(DyslVlaError, match=r"shallow/onnx/export.json is missing: .* `dysl_vla export"):
        compare(checkpoint, settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_replay_computes_with_what_the_parameter_file_says(
    checkpoint: Path, bag: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(params_text({"model.runtime": ONNX}, ""))
    line = ["replay", bag, "--checkpoint", checkpoint, "--every", "4"]
    done = run_without_torch(tmp_path, *line, "--params", params, "--out", tmp_path / "onnx")
    assert done.returncode == 0, done.stderr
    against = ["--params", str(params), "--runtime", TORCH, "--against", str(tmp_path / "onnx" / "replay.json")]
    assert main([*map(str, line), *against, "--out", str(tmp_path / "torch")]) == 0
    ours, theirs = (json.loads((tmp_path / name / "replay.json").read_text()) for name in (TORCH, ONNX))
    assert (ours["policy"]["runtime"], theirs["policy"]["runtime"]) == (TORCH, ONNX)
    assert "onnxruntime" in theirs["versions"]
    between = ours["against"]["between"]
    assert max(between[side]["all"]["translation_mm"]["max"] for side in ("full", "skipping")) < 0.01
    assert [row["skipping"]["calls"] for row in ours["moments"]] == [
        row["skipping"]["calls"] for row in theirs["moments"]
    ]


def test_tuning_measures_the_runtime_that_it_writes_down(checkpoint: Path, bag: Path, tmp_path: Path) -> None:
    line = ["tune", str(bag), "--checkpoint", str(checkpoint), "--target-ms", "50", "--trials", "10"]
    assert main([*line, *ON_ONNX, "--out", str(tmp_path / "onnx")]) == 0
    tuned = tmp_path / "onnx" / "tuned.yaml"
    assert read_params_file(tuned).groups["model"].runtime == ONNX
    assert "--runtime onnx" in tuned.read_text(), "the command that made it"
    assert json.loads((tmp_path / "onnx" / "tune.json").read_text())["runtime"] == ONNX


def test_slow_downs_on_both_runtimes_have_a_cost_for_each(checkpoint: Path, tmp_path: Path) -> None:
    from dysl_vla_ros.comparison.real_time import real_time_curve

    settings = ComparisonSettings(("full", "full:onnx"), SHORT, calibration_seeds=0)
    curve = real_time_curve(checkpoint, settings, tmp_path, slow_downs=(1.0,))
    assert len(curve.values["costs"]) == 2
    assert [row["runtime"] for row in curve.values["rows"]] == [TORCH, ONNX]

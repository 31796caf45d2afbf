"""`dysl_vla floors`: every combination once, alike, going on where it stopped; the folders run at their floor."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.comparison.floor_records import RESULT
from dysl_vla_ros.distillation.stages import Distillation
from dysl_vla_ros.floors.training import PARAMETERS, combinations
from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import AT_FLOOR
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS
from noise_episodes import write_noise_episodes
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

LAYERS = 6
SHORT = ("--observations", "24", "--hidden-steps", "4", "--action-steps", "4", "--no-compile")
WANTED = ("--static-layers", "3", "2", "--adapter", "token", "pooled")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS)


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "one"
    return write_tiny_bag(folder, ticks=8, episodes=(INSTRUCTION, "open the drawer") * 2)


def floors(checkpoint: Path, data: Path, out: Path, *more: object) -> int:
    line = ["floors", str(checkpoint), str(data), "--out", str(out), *SHORT, *WANTED]
    return main([*line, *map(str, more)])


@pytest.fixture(scope="module")
def trained(checkpoint, bag, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("floors")
    assert floors(checkpoint, bag, out) == 0
    return out


def stored(folder: Path) -> int:
    """Count what is trained in a DySL folder: every stored value but the controllers' offsets, which are set."""
    with safe_open(folder / "adapters.safetensors", "np") as source:
        return sum(source.get_tensor(name).size for name in source.keys() if not name.endswith("offset"))  # noqa: SIM118


def test_every_combination_comes_once_and_equal_layers_are_trained_once():
    similarity = [0.9, 0.5, 0.99, 0.95, 0.99, 0.9]
    found = combinations(similarity, [3, 2, 3], ["informative", "spread"], ["token", "pooled"])
    assert [(own.name, own.static, own.choices) for own in found if own.adapter == "token"] == [
        ("informative-2-token", (0, 5), ("informative", "spread")),
        ("informative-3-token", (0, 1, 5), ("informative",)),
        ("spread-3-token", (0, 3, 5), ("spread",)),
    ]
    assert len(found) == 6
    assert {own.name for own in combinations(similarity, [2], ["spread"], ["pooled"])} == {"spread-2-pooled"}


def test_each_floor_has_its_figures_and_they_are_those_of_its_folder(trained):
    result = json.loads((trained / RESULT).read_text())
    names = {name for name in result["floors"] if name.startswith("informative-2")}
    assert names == {"informative-2-token", "informative-2-pooled"}
    for name, own in result["floors"].items():
        report = json.loads((trained / name / "distillation.json").read_text())
        assert own["training_steps"] == report["training_steps"] == 8
        assert own["training_seconds"] == report["training_seconds"] > 0.0
        assert own["trainable_parameters"] == report["trainable_parameters"] == stored(trained / name)
        assert own["floor_error"] == report["stages"][1]["floor_error"] > 0.0
        assert result["frames"] == report["frames"] == 16 and report["frames_held_out"] == 16
        config = json.loads((trained / name / "config.json").read_text())
        assert config["modules"]["adapter"] == own["adapter"] and config["partition"]["static"] == own["static"]
    token, pooled = (result["floors"][f"informative-2-{kind}"] for kind in ("token", "pooled"))
    assert token["trainable_parameters"] < pooled["trainable_parameters"]
    assert set(token["reconstruction"]) == {"1"}, "one adapter a block"


def test_a_folder_runs_at_its_floor_under_the_parameter_file_that_is_written_with_it(trained, checkpoint):
    settings = read_params_file(trained / PARAMETERS).runtime
    assert settings == AT_FLOOR
    for name, own in json.loads((trained / RESULT).read_text())["floors"].items():
        runtime = Runtime.load(str(checkpoint), str(trained / name))
        runtime.warm_up()
        played = np.zeros((0, 4), np.float32)
        for _ in range(3):
            pictures = {camera: np.full((96, 96, 3), 90, np.uint8) for camera in runtime.policy.cameras}
            seen = Observation(pictures, np.full(4, 0.2, np.float32), INSTRUCTION)
            result = runtime.step(seen, played, settings)
            assert result.trace.layer_calls == own["layers"] == len(own["static"])
            played = result.chunk.actions[:1]


def test_what_is_finished_is_not_trained_again(trained, checkpoint, bag, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("adapters.safetensors")}
    assert floors(checkpoint, bag, trained) == 0
    said = capsys.readouterr().out
    assert "every floor was trained before" in said
    assert "floors.png" not in said, "nothing was played"
    assert f"--adapters {trained / 'informative-2-token'} --params {trained / PARAMETERS}" in said
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("adapters.safetensors")} == before


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bits(trained, checkpoint, bag, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patched:
        done = []

        def interrupted(self, whole=Distillation.train_actions):
            done.append(1)
            if len(done) == 3:
                raise KeyboardInterrupt
            return whole(self)

        patched.setattr(Distillation, "train_actions", interrupted)
        assert floors(checkpoint, bag, tmp_path) == 130
    capsys.readouterr()
    assert floors(checkpoint, bag, tmp_path) == 0
    said = capsys.readouterr().out
    whole = json.loads((trained / RESULT).read_text())["floors"]
    assert f"{len(whole) - 2} of {len(whole)} floors to train" in said and said.count("(finished before)") == 1
    for name in whole:
        both = [(folder / name / "adapters.safetensors").read_bytes() for folder in (trained, tmp_path)]
        assert both[0] == both[1], name


def test_more_combinations_are_added_and_other_settings_are_refused(trained, checkpoint, bag, capsys):
    before = (trained / RESULT).read_bytes()
    assert floors(checkpoint, bag, trained, "--seed", "1") == 2
    assert "holds floors made with other settings; name another folder for --out" in capsys.readouterr().err
    assert (trained / RESULT).read_bytes() == before
    assert floors(checkpoint, bag, trained, "--static-layers", "2", "4", "--static", "spread") == 0
    assert "2 of 4 floors to train" in capsys.readouterr().out, "those of 2 layers are there under another name"
    assert json.loads(before)["floors"].items() <= json.loads((trained / RESULT).read_text())["floors"].items()


def test_a_damaged_result_is_refused_and_kept(checkpoint, bag, tmp_path, capsys):
    (tmp_path / RESULT).write_text("{")
    assert floors(checkpoint, bag, tmp_path) == 2
    assert "floors.json cannot be read" in capsys.readouterr().err
    assert (tmp_path / RESULT).read_text() == "{"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--static-layers", "6"], "--static-layers 6 of 6 leaves nothing to skip"),
        (["--static-layers", "1"], "static layers must be 2 to 6 of 6"),
        (["--queries", "0"], "--queries must be at least 1, not 0 (adapters without pooled tokens: --adapter token)"),
        (["--action-steps", "0"], "--action-steps must be at least 1, not 0"),
        (["--beside", "none.json"], "--beside none.json: no such file or folder"),
        (["--evaluate", "1"], "--evaluate plays in the simulator, which knows nothing of bags"),
        (["--evaluate", str(len(CALIBRATION_SEEDS) + 1)], "calibration scenes a task are wanted"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(checkpoint, bag, tmp_path, capsys, more, said):
    assert floors(checkpoint, bag, tmp_path / "out", *more) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_floors_and_full_depth_are_played_in_calibration_scenes_and_not_twice(checkpoint, tmp_path, capsys):
    pytest.importorskip("mujoco")
    data = write_noise_episodes(tmp_path / "data", ["push"], [6] * 6)
    more = ["--static-layers", 2, "--adapter", "token", "--tasks", "push"]
    more += ["--evaluate", 2, "--max-ticks", 3, "--jobs", 1]
    assert floors(checkpoint, data, tmp_path / "out", *more) == 0
    result = json.loads((tmp_path / "out" / RESULT).read_text())
    (own,) = result["floors"].values()
    for played in (own["closed_loop"], result["full_depth"]):
        assert played["seeds"] == [CALIBRATION_SEEDS.start, CALIBRATION_SEEDS.start + 2]
        assert (played["episodes"], played["tasks"], played["successes_by_task"]) == (2, ["push"], {"push": 0})
        assert played["outcomes"] == {"push": "00"}
    picture = tmp_path / "out" / "floors.png"
    said = capsys.readouterr().out
    assert "0/2" in said and f"knee, easy: 2 of {LAYERS} layers (" in said and f"written: {picture}" in said

    kept = (tmp_path / "out" / RESULT).read_bytes()
    picture.unlink()
    row = {
        "method": "dysl",
        "tasks": "easy",
        "actions_per_inference": 1,
        "episodes": 4,
        "successes": 3,
        "layers_mean": 3.5,
    }
    table = {"tasks": {"easy": ["push"], "hard": ["assembly"]}, "max_ticks": 3, "methods": [row]}
    (tmp_path / "table.json").write_text(json.dumps(table))
    assert floors(checkpoint, data, tmp_path / "out", *more, "--beside", tmp_path / "table.json") == 0
    said = capsys.readouterr()
    assert "table.json: hard left out" in said.out
    assert "episode/s" not in said.err, "they were played before"
    assert picture.exists() and (tmp_path / "out" / RESULT).read_bytes() == kept

    earlier = {name: value for name, value in result.items() if name != "full_depth"}  # as an earlier release has it
    (tmp_path / "out" / RESULT).write_text(json.dumps(earlier))
    assert floors(checkpoint, data, tmp_path / "out", *more[: more.index("--evaluate")]) == 0
    assert "knee: full depth was not played" in capsys.readouterr().out
    assert floors(checkpoint, data, tmp_path / "out", *more) == 0
    bars = capsys.readouterr().err.replace("\n", "\r").split("\r")
    assert {bar.split(":")[0] for bar in bars if "episode/s" in bar} == {"full depth"}
    assert json.loads((tmp_path / "out" / RESULT).read_text()) == result, "to the same end"

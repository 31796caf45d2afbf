"""Every switch of `calibrate` and `distill` changes what it names, nothing else; what is reported is what is stored."""

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.runtime.folder import load_dysl
from dysl_vla_ros.skipping.streams import Stream
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

LAYERS = 8
SHORT = ("--observations", "30", "--hidden-steps", "2", "--action-steps", "2", "--joint-steps", "3", "--no-compile")
STATIC = (0, 4, 7)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("base"), layers=LAYERS)


@pytest.fixture(scope="module")
def bag(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bags") / "one"
    return write_tiny_bag(folder, ticks=9, episodes=(INSTRUCTION, "open the drawer") * 2)


class Made:
    """A DySL folder, as it lies on the disk."""

    def __init__(self, folder: Path) -> None:
        self.config = json.loads((folder / "config.json").read_text())
        self.report = json.loads((folder / "distillation.json").read_text())
        self.calibration = json.loads((folder / "calibration.json").read_text())
        with safe_open(folder / "adapters.safetensors", "np") as source:
            self.shapes = {name: source.get_tensor(name).shape for name in source.keys()}  # noqa: SIM118
            self.values = {name: source.get_tensor(name).tobytes() for name in self.shapes}
            sizes = {name: source.get_tensor(name).size for name in self.shapes}
        self.trained = sum(size for name, size in sizes.items() if not name.endswith("offset"))


def make(checkpoint: Path, bag: Path, folder: Path, *switches: str, choose: tuple[str, ...] = ()) -> Made:
    """Calibrate and distill; return what was written."""
    common = [str(checkpoint), str(bag), "--adapters", str(folder)]
    choose = choose or ("--static-layers", "3", "--static", "spread")
    assert main(["calibrate", *common, "--observations", "20", *choose]) == 0
    assert main(["distill", *common, *SHORT, *switches]) == 0
    return Made(folder)


@pytest.fixture(scope="module")
def plain(checkpoint, bag, tmp_path_factory) -> Made:
    return make(checkpoint, bag, tmp_path_factory.mktemp("plain") / "dysl")


def same_but(one: dict, other: dict, *names: str) -> None:
    """Hold two configs equal but for what may differ."""
    left = ("files", "training", *names)  # training says how long it took
    assert {k: v for k, v in one.items() if k not in left} == {k: v for k, v in other.items() if k not in left}


def settings_but(one: Made, other: Made, *names: str) -> None:
    """Hold the settings of two runs equal but for what was switched, and see that it was."""
    before, after = one.report["settings"], other.report["settings"]
    assert [name for name in before if before[name] != after[name]] == list(names)


def test_what_is_reported_is_what_is_stored(plain, checkpoint):
    report = plain.report
    assert report["trainable_parameters"] == plain.trained
    policy = load_policy(checkpoint)
    assert report["policy_parameters"] == sum(p.numel() for p in policy.network.parameters())
    assert [stage["steps"] for stage in report["stages"]] == [2, 2, 3]
    assert report["training_steps"] == 7
    assert report["training_seconds"] == pytest.approx(sum(stage["seconds"] for stage in report["stages"]), abs=0.06)
    assert (report["frames"], report["frames_held_out"]) == (18, 18)
    hidden, actions, joint = report["stages"]
    assert list(hidden["reconstruction"]) == ["1", "2", "3", "5", "6"]
    assert actions["floor_error"] > 0.0 and joint["floor_error"] > 0.0
    assert [own["step"] for own in joint["judgements"]] == [1, 2, 3]
    assert set(joint["judgements"][-1]) == {"step", "skip_rate", "soft_error", "hard_error", "rank_correlation"}
    assert set(plain.calibration["signals"]["controllers"]) == {"rank_correlation", "worst_tenth_caught"}


@pytest.mark.slow
def test_variants_of_frames_are_learned_from_and_not_judged_by(plain, checkpoint, bag, tmp_path, capsys):
    varied = make(checkpoint, bag, tmp_path / "dysl", "--variants", "2")
    assert varied.report["frames"] == 3 * plain.report["frames"]
    assert varied.report["frames_held_out"] == plain.report["frames_held_out"]
    same_but(plain.config, varied.config)
    settings_but(plain, varied)
    assert varied.shapes == plain.shapes and varied.values != plain.values
    assert main(["distill", str(checkpoint), str(bag), "--variants", "-1"]) == 2
    assert "--variants must be at least 0, not -1" in capsys.readouterr().err


@pytest.mark.slow
def test_token_by_token_leaves_out_what_pools_and_nothing_else(plain, checkpoint, bag, tmp_path):
    token = make(checkpoint, bag, tmp_path / "dysl", "--adapter", "token")
    assert (plain.config["modules"]["adapter"], plain.config["modules"]["queries"]) == ("pooled", 4)
    assert (token.config["modules"]["adapter"], token.config["modules"]["queries"]) == ("token", 0)
    same_but(plain.config, token.config, "modules")
    settings_but(plain, token)
    pooling = {name for name in plain.shapes if name.startswith("pools.") or name.endswith(".pooled.weight")}
    assert token.shapes == {name: shape for name, shape in plain.shapes.items() if name not in pooling}
    assert token.trained == token.report["trainable_parameters"] < plain.trained


@pytest.mark.slow
def test_one_adapter_a_block_leaves_out_the_skip_points_behind_it_and_nothing_else(plain, checkpoint, bag, tmp_path):
    first = make(checkpoint, bag, tmp_path / "dysl", "--adapters-per-block", "first")
    assert plain.config["partition"]["per_block"] == "all" and first.config["partition"]["per_block"] == "first"
    assert first.config["modules"] == plain.config["modules"]
    settings_but(plain, first)
    kept = ("pools.", "adapters.1.", "adapters.5.", "controllers.1.", "controllers.5.")
    assert first.shapes == {name: shape for name, shape in plain.shapes.items() if name.startswith(kept)}
    assert list(first.report["stages"][0]["reconstruction"]) == ["1", "5"]
    assert first.trained == first.report["trainable_parameters"]
    folder = load_dysl(tmp_path / "dysl", first.config["base"]["sha256"], LAYERS, (Stream("stack", 32),))
    assert folder.partition.skip_points == (1, 5) and folder.partition.blocks == ((1, 4), (5, 7))


@pytest.mark.slow
def test_the_mixture_changes_stage_two_alone(plain, checkpoint, bag, tmp_path):
    mixture = make(checkpoint, bag, tmp_path / "dysl", "--controllers", "mixture")
    settings_but(plain, mixture, "controllers")
    same_but(plain.config, mixture.config)
    assert mixture.shapes == plain.shapes
    timeless = [[{k: v for k, v in s.items() if k != "seconds"} for s in m.report["stages"]] for m in (plain, mixture)]
    assert timeless[0][:2] == timeless[1][:2]
    assert mixture.report["stages"][2]["kind"] == "mixture"
    assert mixture.values != plain.values


@pytest.mark.slow
def test_two_static_layers_leave_one_block(checkpoint, bag, tmp_path):
    two = make(checkpoint, bag, tmp_path / "dysl", choose=("--static-layers", "2", "--static", "informative"))
    assert two.config["partition"]["static"] == [0, LAYERS - 1]
    assert {name.split(".")[1] for name in two.shapes if name.startswith("adapters.")} == set("123456")


@pytest.mark.parametrize(
    ("choose", "static"),
    [
        (("--static-layers", "4", "--static", "spread"), (0, 2, 5, 7)),
        (("--static-ratio", "0.5", "--static", "spread"), (0, 2, 5, 7)),
        (("--static-layers", "8", "--static", "spread"), tuple(range(8))),
    ],
)
def test_a_number_and_a_ratio_come_to_the_same_layers(checkpoint, bag, tmp_path, choose, static, capsys):
    line = [str(checkpoint), str(bag), "--adapters", str(tmp_path)]
    assert main(["calibrate", *line, "--observations", "10", *choose]) == 0
    assert tuple(json.loads((tmp_path / "static_layers.json").read_text())["static"]) == static
    if len(static) == LAYERS:
        assert main(["distill", *line, *SHORT]) == 2
        assert "there is nothing to skip" in capsys.readouterr().err


def test_a_number_of_layers_that_cannot_be_is_refused_before_anything_is_written(checkpoint, bag, tmp_path, capsys):
    folder = tmp_path / "dysl"
    line = ["calibrate", str(checkpoint), str(bag), "--adapters", str(folder)]
    assert main([*line, "--static-layers", "1"]) == 2
    assert "static layers must be 2 to 8 of 8" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*line, "--static-layers", "3", "--static-ratio", "0.5"])
    assert not folder.exists()


@pytest.mark.slow
def test_more_than_a_tenth_of_the_policy_is_warned_of_and_less_is_not(checkpoint, bag, tmp_path, capsys):
    make(checkpoint, bag, tmp_path / "large")
    assert "warning: that is more than a tenth" in capsys.readouterr().out
    small = ("--adapter", "token", "--adapters-per-block", "first", "--bottleneck", "2", "--controller-width", "1")
    made = make(checkpoint, bag, tmp_path / "small", *small)
    said = capsys.readouterr().out
    assert "more than a tenth" not in said
    share = made.trained / made.report["policy_parameters"]
    assert f"{made.trained:,} parameters to train, {share:.1%} of the policy's" in said


@pytest.mark.slow
def test_inspect_shows_the_adapters(checkpoint, bag, tmp_path, capsys):
    make(checkpoint, bag, tmp_path / "dysl", "--adapter", "token", "--adapters-per-block", "first")
    capsys.readouterr()
    assert main(["inspect", str(checkpoint), "--adapters", str(tmp_path / "dysl"), "--steps", "0"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "token by token; 96 wide; one a block, at its first layer" in said and "% of the policy's" in said

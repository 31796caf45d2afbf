"""Bad input to the commands: one line that names the thing and the fix, exit code 2, nothing half-written."""

import json

import pytest

from dysl_vla_ros.commands.distill import require_controller_tasks
from dysl_vla_ros.commands.evaluate import runtime_settings
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.settings import RuntimeSettings
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl


@pytest.fixture
def checkpoint(tmp_path):
    return make_tiny_checkpoint(tmp_path / "base")


def refusal(capsys, *arguments):
    """Run a command that must be refused; return its one line."""
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"dysl_vla {arguments[0]}: error: ")
    return lines[0]


def test_a_missing_checkpoint_is_named(capsys, tmp_path):
    line = refusal(capsys, "evaluate", tmp_path / "nowhere")
    assert f"'{tmp_path / 'nowhere'}' is not a folder" in line and "name another folder" in line


def test_a_folder_without_config_says_what_is_there(capsys, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    assert "has no config.json (there is notes.txt)" in refusal(capsys, "evaluate", tmp_path)


def test_a_flipped_bit_in_the_weights_is_refused_by_hash(capsys, checkpoint):
    path = checkpoint / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    line = refusal(capsys, "evaluate", checkpoint)
    assert "model.safetensors" in line and "SHA-256" in line


def test_a_git_lfs_pointer_is_recognised(capsys, checkpoint):
    (checkpoint / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert "git-lfs pointer" in refusal(capsys, "evaluate", checkpoint)


def test_weights_outside_the_folder_and_pickles_are_refused(capsys, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    for name, said in (
        ("../model.safetensors", "must lie in the folder itself"),
        (str(checkpoint / "model.safetensors"), "must lie in the folder itself"),
        ("model.pt", "pickles could run code"),
    ):
        (checkpoint / "config.json").write_text(json.dumps(config | {"files": {name: "0"}}))
        assert said in refusal(capsys, "evaluate", checkpoint)


def test_an_unknown_family_is_refused_with_the_list(capsys, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"family": "gpt"}))
    assert "unknown family 'gpt'; this version knows reference" in refusal(capsys, "evaluate", checkpoint)


def test_a_newer_format_is_refused_with_both_versions(capsys, checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"format_version": 99}))
    assert "format_version is 99, this version reads 1" in refusal(capsys, "evaluate", checkpoint)


def test_adapters_of_another_base_are_refused_with_both_hashes(capsys, tmp_path, checkpoint):
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    adapters = make_tiny_dysl(tmp_path / "adapters", other)
    line = refusal(capsys, "evaluate", checkpoint, "--adapters", adapters)
    for folder in (checkpoint, other):
        assert json.loads((folder / "config.json").read_text())["files"]["model.safetensors"][:12] in line


@pytest.mark.parametrize("verb", ["evaluate", "demonstrations"])
def test_an_unknown_task_is_refused_with_the_list(capsys, checkpoint, verb):
    line = refusal(capsys, verb, checkpoint, "--tasks", "fly")
    assert "unknown task 'fly'; there are reach, push, pick-place" in line


def test_an_output_folder_that_cannot_be_made_is_named_before_anything_is_done(capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for arguments in (
        ("demonstrations", tmp_path / "file" / "data", "--episodes", 1),
        ("train", tmp_path, tmp_path / "file" / "out"),
    ):
        line = refusal(capsys, *arguments)
        assert str(tmp_path / "file") in line
    assert (tmp_path / "file").read_text() == "in the way"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_distilling_without_chosen_static_layers_names_the_command_that_chooses(capsys, checkpoint, tmp_path):
    (tmp_path / "data" / "reach").mkdir(parents=True)
    (tmp_path / "data" / "reach" / "000.npz").touch()
    line = refusal(capsys, "distill", checkpoint, tmp_path / "data")
    assert "static_layers.json is missing; run `dysl_vla calibrate` first" in line
    assert not (checkpoint / "dysl").exists()


def test_calibrating_without_data_says_what_is_needed(capsys, checkpoint):
    assert "name the data folder too" in refusal(capsys, "calibrate", checkpoint)


def test_a_choice_made_for_another_base_is_refused(capsys, tmp_path, checkpoint):
    (checkpoint / "dysl").mkdir()
    chosen = {"base_sha256": "f" * 64, "choice": "spread", "static": [0, 5]}
    (checkpoint / "dysl" / "static_layers.json").write_text(json.dumps(chosen))
    (tmp_path / "data" / "reach").mkdir(parents=True)
    (tmp_path / "data" / "reach" / "000.npz").touch()
    assert "was made for the base ffffffffffff" in refusal(capsys, "distill", checkpoint, tmp_path / "data")


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"static": "x"}, "static must be a list of int"), ({"static": [0, "5"]}, "static[1] must be int, not '5'"),
     ({"choice": None}, "choice must be str"), ({"base_sha256": 1}, "base_sha256 must be str")],
)  # fmt: skip
def test_a_choice_of_another_kind_is_refused_by_file_and_key(capsys, tmp_path, checkpoint, changed, said):
    written = json.loads((checkpoint / "config.json").read_text())["files"]["model.safetensors"]
    (checkpoint / "dysl").mkdir()
    chosen = {"base_sha256": written, "choice": "spread", "static": [0, 5]} | changed
    (checkpoint / "dysl" / "static_layers.json").write_text(json.dumps(chosen))
    (tmp_path / "data" / "reach").mkdir(parents=True)
    (tmp_path / "data" / "reach" / "000.npz").touch()
    line = refusal(capsys, "distill", checkpoint, tmp_path / "data")
    assert "static_layers.json" in line and said in line


def test_numbers_that_make_no_sense_are_refused(capsys, tmp_path, checkpoint):
    assert "--seeds" in refusal(capsys, "evaluate", checkpoint, "--seeds", 0)
    assert "--steps" in refusal(capsys, "train", tmp_path, tmp_path / "out", "--steps", 0)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("controllers", "tasks", "said"),
    [
        (["board-set-aside", "reach"], None, "adapters learn from reach as well; name tasks that --tasks does not"),
        (["board-held-out"], None, "board-"),
        (["fly"], None, "unknown task 'fly'"),
    ],
)
def test_tasks_of_controllers_that_tell_them_nothing_new_are_refused(tmp_path, controllers, tasks, said):
    with pytest.raises(DataError, match=said):
        require_controller_tasks(controllers, tasks, [tmp_path])


def test_evaluate_takes_a_parameter_file_and_lets_its_own_arguments_count_over_it(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        "/**: {ros__parameters: {skipping.threshold: 0.4, guidance.window: 7, control.actions_per_inference: 2}}"
    )
    from_file = runtime_settings(path)
    assert (from_file.skipping.threshold, from_file.guidance.window, from_file.actions_per_inference) == (0.4, 7, 2)
    over = runtime_settings(path, threshold=0.7, m=3, full_depth=True)
    assert (over.skipping.threshold, over.skipping.rule, over.guidance.window) == (0.7, "full", 7)
    assert over.actions_per_inference == 3
    assert runtime_settings(None) == RuntimeSettings()


def test_a_parameter_file_that_the_node_would_refuse_is_refused(capsys, tmp_path, checkpoint):
    path = tmp_path / "robot.yaml"
    path.write_text("/**: {ros__parameters: {guidance.stepp: 0.1}}")
    assert "did you mean guidance.step" in refusal(capsys, "evaluate", checkpoint, "--params", path)


def test_settings_that_contradict_the_policy_are_refused_together(capsys, tmp_path, checkpoint):
    path = tmp_path / "robot.yaml"
    path.write_text("/**: {ros__parameters: {control.rate: 30.0, control.actions_per_inference: 64}}")
    said = refusal(capsys, "evaluate", checkpoint, "--tasks", "reach", "--params", path)
    assert "control.rate is 30 Hz" in said and "actions_per_inference is 64, but the policy's chunks have 8" in said
    said = refusal(capsys, "evaluate", checkpoint, "--tasks", "reach", "--actions-per-inference", 9)
    assert "actions_per_inference is 9" in said


@pytest.mark.parametrize("verb", ["demo", "demonstrations", "train", "calibrate", "distill", "evaluate"])
def test_help_names_the_sets_of_tasks(capsys, verb):
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    assert "the sets easy, hard" in " ".join(capsys.readouterr().out.split())

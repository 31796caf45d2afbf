"""Demonstration, calibration and test scenes are disjoint by construction, and nobody leaves its range."""

from itertools import combinations

import pytest

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS, DEMONSTRATION_SEEDS, TEST_SEEDS, calibration_seeds
from dysl_vla_ros.simulation.tasks import EVALUATION_SEED


def test_no_seed_is_for_two_things() -> None:
    for one, other in combinations((DEMONSTRATION_SEEDS, CALIBRATION_SEEDS, TEST_SEEDS), 2):
        assert len(one) and len(other)
        assert max(one.start, other.start) >= min(one.stop, other.stop), f"{one} and {other} overlap"


def test_tables_begin_at_the_first_test_seed() -> None:
    assert TEST_SEEDS[0] == EVALUATION_SEED


def test_calibration_scenes_are_never_those_of_demonstrations_or_tests() -> None:
    assert set(calibration_seeds(len(CALIBRATION_SEEDS))) == set(CALIBRATION_SEEDS)
    assert list(calibration_seeds(2)) == [CALIBRATION_SEEDS.start, CALIBRATION_SEEDS.start + 1]
    for count in (0, len(CALIBRATION_SEEDS) + 1):
        with pytest.raises(DataError, match="calibration scenes a task are wanted"):
            calibration_seeds(count)


def test_recording_ends_where_the_demonstrations_seeds_end(tmp_path, monkeypatch) -> None:
    pytest.importorskip("mujoco")
    from dysl_vla_ros.simulation import demonstrations

    monkeypatch.setattr(demonstrations, "DEMONSTRATION_SEEDS", range(2))
    (tmp_path / "reach").mkdir()
    for seed in range(2):
        (tmp_path / "reach" / f"{seed:05d}.failed").touch()
    with pytest.raises(DataError, match="reach: only 2 scenes are for demonstrations, 2 failed"):
        demonstrations.record_task("reach", tmp_path, 1)


@pytest.mark.parametrize(("options", "scenes"), [((), (0, 1)), (("--first-scene", 40), (40, 41))])
def test_experts_go_up_from_the_first_scene(tmp_path, options, scenes) -> None:
    pytest.importorskip("mujoco")
    line = ("demonstrations", tmp_path, "--tasks", "reach", "--episodes", 1, "--jobs", 1, *options)
    (tmp_path / "reach").mkdir()
    (tmp_path / "reach" / f"{scenes[0]:05d}.failed").touch()  # one that failed before is not tried again
    assert main([str(word) for word in line]) == 0
    assert [path.name for path in (tmp_path / "reach").glob("*.npz")] == [f"{scenes[1]:05d}.npz"]


def test_a_first_scene_outside_those_for_recording_is_refused(tmp_path, capsys) -> None:
    pytest.importorskip("mujoco")
    assert main(["demonstrations", str(tmp_path / "data"), "--first-scene", "5000"]) == 2
    assert "--first-scene 5000: the scenes for recording are 0 to 4999" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()

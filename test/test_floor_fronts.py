"""Floors that were played: the knee and how sure it is, the table by sets, methods beside them, the picture."""

import json
from pathlib import Path

import matplotlib.image
import pytest

from dysl_vla_ros.comparison.floor_records import of_set, sets_played
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.floors.baselines import fitting, read_tables
from dysl_vla_ros.floors.knee import knee, sentence
from dysl_vla_ros.floors.plots import write_floors_picture
from dysl_vla_ros.floors.text import print_floors
from dysl_vla_ros.records.intervals import difference, paired_difference

LAYERS = 24


def closed_loop(*, outcomes=True, max_ticks=200, **by_task):
    """Make a record of 20 scenes a task, of which the first so many were won."""
    tasks = {name.replace("_", "-"): count for name, count in by_task.items()}
    record = {
        "seeds": [5000, 5020], "tasks": list(tasks), "max_ticks": max_ticks, "episodes": 20 * len(tasks),
        "successes": sum(tasks.values()), "successes_by_task": tasks,
    }  # fmt: skip
    kept = {name: "1" * count + "0" * (20 - count) for name, count in tasks.items()}
    return record | ({"outcomes": kept} if outcomes else {})


def floor(layers, choices=("spread",), adapter="pooled", played=None):
    own = {
        "name": f"{choices[0]}-{layers}-{adapter}", "choices": list(choices), "static": list(range(layers)),
        "layers": layers, "adapter": adapter, "floor_error": 0.1 / layers, "trainable_parameters": 1000 * layers,
        "training_steps": 8, "training_seconds": 1.0,
    }  # fmt: skip
    return own | ({"closed_loop": played} if played else {})


def named(*floors):
    return {own["name"]: own for own in floors}


FULL = closed_loop(push=18, reach=20, assembly=18)
FLOORS = named(
    floor(2, ("informative", "spread"), played=closed_loop(push=10, reach=15, assembly=5)),
    floor(3, adapter="token", played=closed_loop(push=16, reach=19, assembly=17)),
    floor(4, played=closed_loop(push=18, reach=20, assembly=17)),
    floor(4, ("informative",), played=closed_loop(push=19, reach=19, assembly=17)),
    floor(5, played=closed_loop(push=20, reach=20, assembly=17)),
    floor(7),
)


def test_a_record_is_told_by_sets():
    assert sets_played([None, FULL]) == ["easy", "hard"] and sets_played([None]) == []
    easy = of_set(FULL, "easy")
    assert (easy.tasks, easy.episodes, easy.successes) == (("push", "reach"), 40, 38)
    assert easy.outcomes == (True,) * 18 + (False,) * 2 + (True,) * 20
    assert of_set(closed_loop(push=3), "hard") is None
    assert of_set(closed_loop(push=3, outcomes=False), "easy").outcomes is None


def test_the_knee_is_the_smallest_floor_within_a_point_and_the_better_of_equal_ones():
    found = knee(FLOORS, FULL, "easy")
    assert found.reached and found.floor["layers"] == 4 and found.own.successes == 38
    assert sentence("easy", found, LAYERS) == (
        "knee, easy: 4 of 24 layers (spread, pooled): 38/40, full depth 38/40; at 40 scenes a difference below about "
        f"{100 * found.resolvable:.0f} points cannot be told from chance"
    )
    better = named(floor(4, played=closed_loop(push=18)), floor(4, ("informative",), played=closed_loop(push=20)))
    assert knee(better, closed_loop(push=18), "easy").floor["choices"] == ["informative"]


def test_a_floor_just_one_point_below_is_one_and_two_are_not():
    tasks = ("push", "reach", "pick_place", "drawer_open", "drawer_close")  # 100 scenes
    full = closed_loop(**dict.fromkeys(tasks, 20))
    for lost, reached in ((1, True), (2, False)):
        own = closed_loop(**dict.fromkeys(tasks, 20) | {"push": 20 - lost})
        assert knee(named(floor(2, played=own)), full, "easy").reached is reached


def test_where_no_floor_reaches_it_the_best_is_named():
    found = knee(FLOORS, FULL, "hard")
    assert not found.reached
    said = sentence("hard", found, LAYERS)
    assert said.startswith(
        "knee, hard: no floor comes within 1 point of full depth's 18/20; the best is 3 of 24 layers (spread, token): "
        "17/20; at 20 scenes a difference below about "
    )


def test_only_floors_of_full_depths_scenes_count():
    other = named(floor(2, played=closed_loop(push=20, max_ticks=100)), floor(3, played=closed_loop(push=20)))
    assert knee(other, closed_loop(push=18), "easy").floor["layers"] == 3
    assert knee(other, None, "easy") is None
    assert knee(other, closed_loop(push=18, max_ticks=5), "easy") is None
    assert knee(other, closed_loop(assembly=18), "easy") is None


def test_how_sure_it_is_comes_from_the_pairs_where_they_were_kept():
    full, own = closed_loop(push=16, reach=10), closed_loop(push=15, reach=9)
    paired = knee(named(floor(2, played=own)), full, "easy").resolvable
    ends = [[True] * first + [False] * (20 - first) + [True] * second + [False] * (20 - second)
            for first, second in ((15, 9), (16, 10))]  # fmt: skip
    _, low, high = paired_difference(*ends)
    assert paired == (high - low) / 2
    del own["outcomes"]
    unpaired = knee(named(floor(2, played=own)), full, "easy").resolvable
    _, low, high = difference(24, 40, 26, 40)
    assert unpaired == (high - low) / 2 > paired


def test_the_table_has_a_column_a_set_full_depth_and_the_knee(capsys):
    print_floors(FLOORS, FULL, LAYERS)
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[-2:] == ["easy", "hard"]
    assert rows[0].split()[:2] == ["informative-2-pooled", "(both)"] and rows[0].split()[-2:] == ["25/40", "5/20"]
    assert rows[5].split()[0] == "spread-7-pooled" and rows[5].endswith("not played")
    assert rows[6].split() == ["full", "depth", "24/24", "38/40", "18/20"]
    assert [row.split(":")[0] for row in rows[7:]] == ["knee, easy", "knee, hard"]
    assert len({len(row) for row in (head, *rows[:7])}) == 1, "columns stand below each other"


@pytest.mark.parametrize(
    ("played", "full", "head", "last"),
    [
        (None, None, "closed loop", "not played"),
        (
            closed_loop(assembly=3), None, "hard",
            "knee: full depth was not played in these scenes; --evaluate N plays it",
        ),
        (
            closed_loop(assembly=3), closed_loop(assembly=3, max_ticks=9), "hard",
            "1 of the floors were played in other scenes than full depth and do not count below",
        ),
    ],
)  # fmt: skip
def test_the_table_has_what_was_played(capsys, played, full, head, last):
    print_floors(named(floor(2, played=played)), full, LAYERS)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(f"  {head}") and lines[-1].endswith(last)


TASKS = {"easy": ["push", "reach"], "hard": ["assembly"]}


def table(folder: Path, **changes) -> Path:
    rows = [
        {"method": method, "tasks": tasks, "actions_per_inference": m, "episodes": 40, "successes": 30,
         "layers_mean": layers}
        for tasks in TASKS for method, m, layers in (("full", 1, 24.0), ("dysl", 1, 6.5), ("dysl", 4, 6.1),
                                                     ("oracle", 1, 6.2), ("static", 1, None))
    ]  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    values = {"tasks": TASKS, "max_ticks": 200, "condition": "plain", "delay": 0.0, "methods": rows} | changes
    (folder / "table.json").write_text(json.dumps({name: own for name, own in values.items() if own is not None}))
    return folder / "table.json"


def test_methods_of_tables_are_points_with_m_1(tmp_path):
    (one,) = read_tables([table(tmp_path / "a")])
    assert [(own.label, own.tasks, own.layers) for own in one.points[:3]] == [
        ("full", "easy", 24.0), ("dysl", "easy", 6.5), ("oracle, a bound", "easy", 6.2),
    ]  # fmt: skip
    assert len(one.points) == 6
    both = read_tables([table(tmp_path / "a"), table(tmp_path / "b")])
    assert [own.points[1].label for own in both] == ["dysl (a)", "dysl (b)"]
    same = read_tables([table(tmp_path / "a" / "out"), table(tmp_path / "b" / "out")])
    assert same[0].points[1].label != same[1].points[1].label, "folders of one name are told apart"


def test_only_sets_of_the_same_tasks_stand_beside_floors(tmp_path):
    tables = read_tables([table(tmp_path)])
    points, said = fitting(tables, FULL)
    assert len(points) == 6 and said == []
    points, said = fitting(tables, closed_loop(push=3, assembly=3, max_ticks=100))
    assert {own.tasks for own in points} == {"hard"}
    assert said == [
        f"{tmp_path / 'table.json'}: easy left out, the floors played other tasks",
        f"{tmp_path / 'table.json'}: at most 200 ticks an episode, floors 100",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"methods": None}, "lacks 'methods'; name a table.json that `dysl_vla evaluate --methods` of this release"),
        ({"methods": [{"method": "full", "actions_per_inference": 1}]}, "lacks 'layers_mean'"),
        ({"methods": []}, "has no method with m = 1"),
        ({"methods": 3}, "cannot be read as a table"),
        ({"methods": [{"method": "full", "tasks": "easy", "actions_per_inference": 1, "episodes": 2, "successes": 3,
                       "layers_mean": 24.0}]}, "full has 3 of 2 episodes"),
        ({"condition": "dim"}, "was played with the condition dim, floors are not"),
        ({"delay": 0.1}, "was played with a delay of 0.1 s, floors are not"),
    ],
)  # fmt: skip
def test_a_table_that_cannot_be_drawn_is_refused_by_name(tmp_path, changes, said):
    path = table(tmp_path, **changes)
    with pytest.raises(DataError) as caught:
        read_tables([path])
    assert str(caught.value).startswith(f"{path} ") and said in str(caught.value)


def test_a_table_that_is_none_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"none\.json cannot be read: No such file or directory; name a table\.json"):
        read_tables([tmp_path / "none.json"])
    (tmp_path / "table.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read as a table"):
        read_tables([tmp_path / "table.json"])


def test_the_picture_has_a_panel_a_set_and_grows_with_its_legend(tmp_path):
    def size(floors, full, points=()):
        path = write_floors_picture(tmp_path, floors, full, LAYERS, points)
        return matplotlib.image.imread(path).shape[:2]

    points, _ = fitting(read_tables([table(tmp_path / "a"), table(tmp_path / "b")]), FULL)
    height, width = size(FLOORS, FULL)
    assert size(FLOORS, FULL, points)[0] > height and size(FLOORS, FULL, points)[1] == width
    assert size(named(floor(3, played=closed_loop(assembly=3))), None)[1] < width
    assert size({}, FULL)[1] == width, "full depth alone, as after an interruption"
    assert [own.name for own in tmp_path.glob("*.png")] == ["floors.png"]

"""The best constant depths: the smallest floors that lose nothing in calibration scenes, by set and by instruction."""

import pytest

from dysl_vla_ros.comparison.constant_floors import (
    CHOICES,
    FULL_DEPTH,
    for_all,
    for_each_instruction,
    for_each_set,
    read_floors,
)
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.tasks import BOARD_HELD_OUT, BOARD_SET_ASIDE, TASKS, set_of
from floor_records import write_floors

SCENES = 20
ALL = "1" * SCENES


def ended(lost: int) -> str:
    return "0" * lost + "1" * (SCENES - lost)


def test_all_sets_need_the_floor_of_the_one_that_needs_most_and_a_table_names_each_its_own(tmp_path):
    tasks = [TASKS["reach"], TASKS["push"], TASKS["assembly"]]
    floors = {
        "two": (2, {"reach": ALL, "push": ended(2), "assembly": ended(5)}),
        "four": (4, {"reach": ALL, "push": ALL, "assembly": ended(1)}),
        "eight": (8, {"reach": ALL, "push": ALL, "assembly": ALL}),
    }
    values = read_floors(write_floors(tmp_path, floors, dict.fromkeys(("reach", "push", "assembly"), ALL)))
    assert for_all(values, tasks) == {"reach": "eight", "push": "eight", "assembly": "eight"}
    assert for_each_set(values, tasks) == {"reach": "four", "push": "four", "assembly": "eight"}
    assert for_each_instruction(values, tasks) == {"reach": "two", "push": "four", "assembly": "eight"}


def test_where_no_floor_is_within_every_layer_runs(tmp_path):
    values = read_floors(write_floors(tmp_path, {"two": (2, {"reach": ended(1)})}, {"reach": ALL}))
    assert all(choose(values, [TASKS["reach"]]) == {"reach": FULL_DEPTH} for choose in CHOICES.values())


def test_a_floor_that_does_better_in_one_task_makes_up_for_another_of_its_set_alone(tmp_path):
    floors = {"two": (2, {"reach": ALL, "push": ended(1), "assembly": ALL})}
    full = {"reach": ended(1), "push": ALL, "assembly": ALL}
    values = read_floors(write_floors(tmp_path, floors, full))
    tasks = [TASKS[name] for name in full]
    assert set(for_each_set(values, tasks).values()) == {"two"}
    assert for_each_instruction(values, tasks)["push"] == FULL_DEPTH


def test_what_is_held_out_is_chosen_on_chains_set_aside_that_are_as_long(tmp_path):
    aside = {task.name: task.chain.hops for task in BOARD_SET_ASIDE}
    floors = {
        str(layers): (layers, {name: ALL if hops <= reach else ended(9) for name, hops in aside.items()})
        for layers, reach in ((4, 2), (8, 3), (12, 4))
    }
    values = read_floors(write_floors(tmp_path, floors, dict.fromkeys(aside, ALL)))
    chosen = for_each_instruction(values, BOARD_HELD_OUT)
    assert chosen == {task.name: {2: "4", 3: "8", 4: "12"}[task.chain.hops] for task in BOARD_HELD_OUT}
    assert set(for_all(values, BOARD_HELD_OUT).values()) == {"12"}
    assert all(set_of(task) == "board-held-out" for task in BOARD_HELD_OUT)


def test_what_was_not_played_is_named_with_the_option(tmp_path):
    values = read_floors(write_floors(tmp_path, {"two": (2, {"reach": ALL})}, {"reach": ALL}))
    with pytest.raises(DataError, match=r"not played in push; .* --evaluate-tasks"):
        for_all(values, [TASKS["reach"], TASKS["push"]])
    with pytest.raises(DataError, match="board-set-aside"):
        for_all(values, BOARD_HELD_OUT)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"floors": {}, "full_depth": null}', '{"floors": 3}'])
def test_a_file_that_is_no_table_of_floors_is_refused(tmp_path, text):
    (tmp_path / "floors.json").write_text(text)
    with pytest.raises(DataError, match="--evaluate N"):
        read_floors(tmp_path)

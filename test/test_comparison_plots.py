"""The picture of success over milliseconds puts methods on one clock, whatever the machine was doing."""

import pytest

from dysl_vla_ros.comparison.plots import stack_milliseconds


def row(method, own, speedup, tasks="easy", m=1):
    played = {"method": method, "tasks": tasks, "actions_per_inference": m}
    return played | {"stack_ms_mean": own, "stack_speedup": speedup}


def test_methods_that_were_played_while_the_machine_was_slow_stand_where_they_belong():
    rows = [
        row("full", 18.0, 1.0),
        row("static", 2.0, 9.0),
        row("fixed", 4.0, 9.0),  # the same plan, beside a full depth that took 36 ms then
        row("full", 20.0, 1.0, tasks="hard"),
        row("static", 2.5, 8.0, tasks="hard"),
    ]
    assert stack_milliseconds(rows) == pytest.approx([18.0, 2.0, 2.0, 20.0, 2.5])


def test_a_bound_has_no_place_and_without_full_depth_a_method_keeps_its_own_milliseconds():
    rows = [
        row("full", 18.0, 1.0),
        row("oracle", None, None),
        row("dysl", 3.0, None, m=4),
        row("dysl", 3.0, None, tasks="hard"),
    ]
    assert stack_milliseconds(rows) == [18.0, None, 3.0, 3.0]

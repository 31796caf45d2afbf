"""What depth is worth beside constant depths: sets count alike, both methods see the same scenes."""

from dataclasses import replace

import pytest
from rich.console import Console

from dysl_vla_ros.comparison.episode_figures import EpisodeFigures
from dysl_vla_ros.comparison.methods.method import MethodOptions
from dysl_vla_ros.comparison.plan import Comparison, Entry
from dysl_vla_ros.comparison.results import moments
from dysl_vla_ros.comparison.run import Played
from dysl_vla_ros.comparison.text import print_worth
from dysl_vla_ros.comparison.worth import worth_of
from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings
from dysl_vla_ros.simulation.tasks import tasks_named

TASKS = ("reach", "push", "assembly", "board-red-0")  # three sets
SEEDS = 6


def episode(method: str, task: str, seed: int, calls: list[int], success: bool = True) -> EpisodeFigures:
    times = [float(call) for call in calls]
    return EpisodeFigures(
        method=method, task=task, seed=seed, success=success, ticks=len(calls), layers_total=24, blocks=[[1, 24]],
        layer_calls=calls, verified=[0] * len(calls), corrections=[], ruled=len(calls), held_back=0,
        allow_points=[[0] * 24], phases=[0] * len(calls), stack_ms=times, step_ms=times,
    )  # fmt: skip


def played(depths) -> Played:
    """Play methods, by name a function of task and scene that gives the layer calls of an episode."""
    evaluation = EvaluationSettings(seeds=SEEDS, tasks=tuple(tasks_named(TASKS)))
    entries = tuple(Entry(name, 1) for name in depths)
    scenes = [(task, seed) for task in TASKS for seed in range(SEEDS)]
    episodes = {
        entry: [episode(entry.label, task, seed, depths[entry.method](task, seed)) for task, seed in scenes]
        for entry in entries
    }
    return Played(Comparison(entries, MethodOptions("somewhere"), evaluation), episodes, episodes, {}, {})


def of(worth, method: str) -> dict:
    return next(row for row in worth["methods"] if row["method"] == method)


def test_a_mean_is_one_of_episodes_then_tasks_then_sets():
    long_in_easy = {"reach": [2] * 50, "push": [4], "assembly": [8], "board-red-0": [10, 20]}
    worth = worth_of(played({"full": lambda task, seed: [24], "dysl": lambda task, seed: long_in_easy[task]}))
    assert of(worth, "dysl")["layers_mean"] == pytest.approx((3 + 8 + 15) / 3, abs=1e-4)
    assert of(worth, "dysl")["stack_speedup"] == pytest.approx(24 * 3 / (3 + 8 + 15), abs=1e-4)
    assert of(worth, "dysl")["ratios"] == {}, "no constant depth was played"


def test_where_each_scene_takes_half_of_the_constant_depth_the_ratio_is_a_half_and_sure():
    def constant(task: str, seed: int) -> list[int]:
        return [2 * (seed + 1)]

    def half(task: str, seed: int) -> list[int]:
        return [seed + 1]

    ratio = of(worth_of(played({"dysl": half, "constant": constant})), "dysl")["ratios"]["constant"]
    assert ratio == {part: {"ratio": 0.5, "low": 0.5, "high": 0.5} for part in ("all", "board")}


def test_median_layers_are_told_before_and_after_the_object_was_moved():
    fetched = [replace(episode("dysl", "push", seed, [2, 4, 9, 11]), fetching=2) for seed in range(3)]
    assert moments(fetched) == {"layers_median_fetching": 3.0, "layers_median_moving": 10.0}
    never = [replace(fetched[0], fetching=4)]
    assert moments(never) == {"layers_median_fetching": 6.5, "layers_median_moving": None}
    assert moments([episode("dysl", "push", 0, [2])])["layers_median_fetching"] is None, "an earlier release's"


def test_the_interval_widens_with_what_scenes_differ_by():
    ratios = of(worth_of(played({
        "dysl": lambda task, seed: [2 if seed % 2 else 20],
        "constant": lambda task, seed: [12],
        "constant_by_set": lambda task, seed: [3 if task == "board-red-0" else 12],
    })), "dysl")["ratios"]  # fmt: skip
    wide = ratios["constant"]["all"]
    assert wide["low"] < 11 / 12 - 0.1 < wide["ratio"] < 11 / 12 + 0.1 < wide["high"]
    assert ratios["constant_by_set"]["board"]["ratio"] == pytest.approx(11 / 3, abs=1e-3)


def test_the_terminal_shows_a_row_a_part_and_nothing_without_constant_depths():
    depths = {"full": lambda task, seed: [24], "dysl": lambda task, seed: [6], "constant": lambda task, seed: [12]}
    console = Console(record=True, width=140, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    print_worth(worth_of(played(depths)), console)
    text = console.export_text()
    assert "0.50 (0.50 to 0.50)" in text and "board" in text
    print_worth(worth_of(played({"full": depths["full"]})), console)
    assert not console.export_text().strip()

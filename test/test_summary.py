"""The summary's laws: layer calls count, shares are shares, nothing measured is null and never NaN."""

import json
import math

import numpy as np
import pytest

from dysl_vla_ros.records.summary import allow_points, summarise, timings, write_summary
from dysl_vla_ros.records.trace import TIMINGS, EpisodeRecord
from recorded_episodes import BLOCKS, episode, inference


def test_layers_count_both_passes_and_the_deviation_is_within_episodes():
    constant = [episode(calls=[10, 10, 10]), episode(calls=[4, 4])]
    summary = summarise(constant)["tasks"][0]
    assert summary["layers_mean"] == pytest.approx(38 / 5)
    assert summary["layers_std_within"] == 0.0, "episodes that differ from each other do not vary within"
    varied = summarise([episode(calls=[2, 6]), episode(calls=[4, 4])])["tasks"][0]
    assert varied["layers_std_within"] == pytest.approx(1.0)


def test_medians_of_layers_part_where_the_object_was_moved_and_lose_no_inference():
    record = episode(calls=[2, 2, 9, 2, 7, 8, 7])
    for moved in (math.nan, *(own.time for own in record.inferences)):
        record.object_moved = moved
        calls, parts = list(record.layer_calls), summarise([record])["overall"]
        before = [c for c, own in zip(calls, record.inferences, strict=True) if not own.time >= moved]
        after = calls[len(before) :]
        assert parts["layers_median_fetching"] == (np.median(before) if before else None)
        assert parts["layers_median_moving"] == (np.median(after) if after else None)


def test_every_key_of_the_format_is_there_and_instructions_keep_their_order():
    summary = summarise(
        [episode(instruction="open the drawer"), episode(instruction="reach"), episode(instruction="reach")]
    )
    assert [task["instruction"] for task in summary["tasks"]] == ["open the drawer", "reach"]
    wanted = {"instruction", "episodes", "successes", "layers_mean", "layers_std_within", "layers_total"}
    wanted |= {"verified_share", "allow_points", "timings"}
    for task in summary["tasks"]:
        assert wanted <= task.keys()
        assert set(task["timings"]) == set(TIMINGS)
        assert all(set(figures) == {"p50", "p99"} for figures in task["timings"].values())
    assert summary["tasks"][1]["episodes"] == 2
    assert summary["overall"]["episodes"] == 3


def test_allow_points_are_a_histogram_a_block_that_loses_no_inference():
    record = episode(calls=[3] * 50, seed=3)
    histograms = allow_points([record])
    assert [(block["first"], block["end"]) for block in histograms] == list(BLOCKS)
    for number, block in enumerate(histograms):
        assert len(block["counts"]) == block["end"] - block["first"] + 1
        points = [inference.trace.allow_points[number] for inference in record.inferences]
        assert block["counts"] == [points.count(layer) for layer in range(block["first"], block["end"] + 1)]


def test_verification_is_timed_over_verified_inferences_only():
    records = [inference(verified=False), inference(verified=True, verify_ms=7.0), inference(verified=False)]
    assert timings(records)["verify"] == {"p50": 7.0, "p99": 7.0}
    assert timings(records[:1])["verify"] == {"p50": None, "p99": None}


def test_percentiles_are_those_of_the_timings():
    records = [inference(total_ms=float(value)) for value in range(101)]
    assert timings(records)["total"] == {"p50": 50.0, "p99": 99.0}


def test_nothing_played_gives_nulls_that_any_json_reader_accepts(tmp_path):
    empty = EpisodeRecord(task="reach", instruction="reach", seed=0)
    for episodes in ([], [empty]):
        write_summary(tmp_path / "summary.json", summarise(episodes, complete=False))
        read = json.loads((tmp_path / "summary.json").read_text(), parse_constant=lambda name: pytest.fail(name))
        assert read["complete"] is False
        assert read["overall"]["layers_mean"] is None


def test_an_age_that_nobody_measured_is_null_and_does_not_spoil_the_rest():
    records = [inference(image_age=math.nan), inference(image_age=12.0)]
    assert timings(records)["image_age"]["p50"] == 12.0
    assert np.isfinite(timings(records)["total"]["p50"])

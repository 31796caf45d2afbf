"""Two publishers of one source: found while both give messages, never where one has taken the other's place."""

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dysl_vla_ros.control.publishers import LEAST_WINDOW, PublisherMarks, Publishers, doubled_text, watch_window
from dysl_vla_ros.settings import SafetySettings

WINDOW = 2.5
Stream = list[tuple[float, str, int]]  # s, publisher, number of the message


def camera(name: str, rate: float, begin: float, end: float, first: int = 1) -> Stream:
    count = int((end - begin) * rate)
    return [(begin + index / rate, name, first + index) for index in range(count)]


def verdicts(stream: Stream, gids: bool) -> list[tuple[float, bool]]:
    """Return after each message, in the order of arrival, whether the source is doubled."""
    judge, marks = Publishers(), PublisherMarks()
    told = []
    for arrival, name, number in sorted(stream):
        info = {"publication_sequence_number": number}
        if gids:
            info["publisher_gid"] = {"implementation_identifier": "rmw", "data": name.encode()}
        told.append((arrival, judge.heard("image", marks.of(info, arrival, WINDOW), arrival, WINDOW)))
    return told


both_ways = pytest.mark.parametrize("gids", [True, False], ids=["gid", "numbers"])


@both_ways
@given(
    rate=st.floats(1.0, 200.0),
    other_rate=st.floats(1.0, 200.0),
    offset=st.floats(0.0, 1.0),
    begun=st.integers(1, 100_000),
)
def test_two_that_publish_at_the_same_time_are_found_whatever_their_rates(gids, rate, other_rate, offset, begun):
    stream = camera("a", rate, 0.0, 12.0, begun) + camera("b", other_rate, offset, 12.0)
    told = verdicts(stream, gids)
    slowest = 1.0 / min(rate, other_rate)
    assert not told[0][1]
    # in numbers, the other one's may for once continue the first one's
    assert all(doubled for arrival, doubled in told if arrival > offset + (3.0 if gids else 5.0) * slowest + 0.01)


@both_ways
@given(
    rate=st.floats(1.0, 200.0),
    silence=st.floats(0.0, 3.0),
    begun=st.integers(1, 100_000),
    late=st.booleans(),
    new_rate=st.floats(1.0, 200.0),
)
@example(rate=1.0, silence=0.0, begun=1, late=True, new_rate=2.0)  # both have sent number 5 when the new one sends 6
def test_a_driver_that_starts_again_is_never_two_even_with_a_late_message(gids, rate, silence, begun, late, new_rate):
    ended = camera("old", rate, 0.0, 5.0, begun)
    again = 5.0 + silence
    started = camera("new", new_rate, again, again + 8.0)
    if late:
        arrival, name, number = ended.pop()
        ended.append((again + 0.5 / new_rate, name, number))
    assert not any(doubled for _, doubled in verdicts(ended + started, gids))


@both_ways
@given(rate=st.floats(1.0, 1000.0), lost=st.sets(st.integers(0, 400)), begun=st.integers(1, 2**62))
def test_one_publisher_that_loses_messages_is_never_two(gids, rate, lost, begun):
    stream = [message for index, message in enumerate(camera("a", rate, 0.0, 400 / rate, begun)) if index not in lost]
    assert not any(doubled for _, doubled in verdicts(stream, gids))


@both_ways
def test_it_ends_when_one_was_silent_for_the_window_and_not_before(gids):
    stream = camera("a", 30.0, 0.0, 10.0, 500) + camera("b", 10.0, 1.0, 4.0)
    told = verdicts(stream, gids)
    last = max(arrival for arrival, name, _ in stream if name == "b")
    assert all(doubled for arrival, doubled in told if 1.3 < arrival < last + WINDOW - 0.01)
    assert not any(doubled for arrival, doubled in told if arrival > last + WINDOW + 0.01)


def test_it_ends_also_while_nothing_arrives():
    judge = Publishers()
    for index in range(10):
        judge.heard("image", index % 2, 0.1 * index, WINDOW)
    assert set(judge.doubled("image", 1.0, WINDOW)) == {0, 1}
    assert not judge.doubled("image", 4.0, WINDOW)


def test_after_it_has_ended_it_takes_as_much_again_to_be_doubled():
    judge = Publishers()
    told = [judge.heard("image", mark, 0.1 * index, WINDOW) for index, mark in enumerate("ababa")]
    assert told == [False, False, False, False, True]
    told = [judge.heard("image", mark, 10.0 + 0.1 * index, WINDOW) for index, mark in enumerate("aababa")]
    assert told == [False, False, False, False, False, True]


def test_sources_are_judged_each_by_itself():
    judge = Publishers()
    for index in range(20):
        assert not judge.heard("arm", "arm driver", 0.1 * index, WINDOW)
        assert not judge.heard("finger", "finger driver", 0.1 * index + 0.05, WINDOW)


def test_where_nothing_tells_whose_a_message_is_there_is_no_mark():
    marks = PublisherMarks()
    untold = {"source_timestamp": 1, "publication_sequence_number": None, "publisher_gid": None}
    assert marks.of(untold, 0.0, math.inf) is None and marks.of({}, 0.0, math.inf) is None


def test_a_gid_is_the_same_whatever_its_padding():
    from types import SimpleNamespace

    from dysl_vla_ros.control.publishers import gid_of

    info = {"publisher_gid": {"implementation_identifier": "rmw", "data": b"\x01\x00\x02\x00"}}
    end = SimpleNamespace(endpoint_gid=[1, 0, 2] + [0] * 13)
    assert PublisherMarks().of(info, 0.0, math.inf) == gid_of(end)


def test_the_window_covers_a_message_a_second_and_grows_with_the_arrival_limit():
    assert watch_window(SafetySettings()) == LEAST_WINDOW > 2.0
    assert watch_window(SafetySettings(max_arrival_age=2.0)) == 8.0


def test_the_text_names_topic_both_nodes_and_joints():
    assert doubled_text("/image", ["/camera", "/player"]) == "/image: /camera and /player publish it at the same time"
    assert doubled_text("/image", ["/camera"]) == "/image: two publishers of /camera at the same time"
    text = doubled_text("/joint_states", ["/arm", "/zeros"], ["elbow", "finger"])
    assert text == "/joint_states: joints elbow, finger: /arm and /zeros publish it at the same time"

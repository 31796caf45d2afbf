"""A clock that was set back while a bag was recorded: told from messages out of order, named, and never interleaved."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.rosbag2 import StoragePlugin

from dysl_vla_ros.bags.order import SET_BACK
from dysl_vla_ros.bags.reader import BagReader
from small_bags import SECOND, Said, in_order, read, said, write_mcap, write_ours, write_rosbags

MS = 10**6  # ns
START = 1_700_000_000 * SECOND
TOPICS = ("/a", "/b", "/c")


@st.composite
def set_back_recordings(draw):
    """Segments of a recording, each in the order of its times, and by how many ns the clock was set back between."""
    backs = draw(st.lists(st.integers(200 * MS, 100 * SECOND), max_size=4))
    segments, now, number = [], START, 0
    for back in [0, *backs]:
        now -= back
        segments.append([])
        for place in range(draw(st.integers(6, 20))):
            now += draw(st.integers(2 * MS, 20 * MS))
            segments[-1].append(Said(now, TOPICS[place % len(TOPICS)], f"{number}"))
            number += 1
    return segments, backs


def written(segments, swaps):
    """Lay segments end to end as a recorder does; where ``swaps`` says, two neighbours change places."""
    messages = [message for segment in segments for message in segment]
    for swap in sorted(swaps):
        if swap + 1 < len(messages):
            messages[swap : swap + 2] = messages[swap + 1], messages[swap]
    return messages


def write(folder: Path, messages: Sequence[Said], how: str, split: int | None = None) -> Path:
    """Write a bag with the writer that ``how`` names; with ``split``, in two files that metadata.yaml names."""
    shutil.rmtree(folder, ignore_errors=True)
    storage = StoragePlugin.SQLITE3 if how == "sqlite3" else StoragePlugin.MCAP
    if split is None:
        _ = write_ours(folder, messages) if how == "ours" else write_rosbags(folder, messages, storage)
        return folder
    folder.mkdir()
    names = []
    for part in (messages[:split], messages[split:]):
        file = write(folder / "part", part, how)
        (stored,) = (path for path in file.iterdir() if path.name != "metadata.yaml")
        names.append(f"bag_{len(names)}{stored.suffix}")
        stored.rename(folder / names[-1])
        shutil.rmtree(file)
    content = {"relative_file_paths": names, "message_count": len(messages)}
    (folder / "metadata.yaml").write_text(yaml.safe_dump({"rosbag2_bagfile_information": content}))
    return folder


@pytest.mark.parametrize("how", ["ours", "rosbags", "sqlite3"])
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    recording=set_back_recordings(),
    swaps=st.sets(st.integers(0, 100).map(lambda place: 2 * place), max_size=10),
    split=st.one_of(st.none(), st.integers(1, 29)),
)
def test_k_set_backs_are_k_places_named_and_between_them_nothing_is_interleaved(tmp_path, how, recording, swaps, split):
    segments, backs = recording
    messages = written(segments, swaps)
    split = split and min(split, len(messages) - 1)
    bag = write(tmp_path / "bag", messages, how, split)
    found, damage = read(bag)
    assert found == [message for segment in segments for message in segment]
    assert len(damage) == len(backs) and all("the clock was set back by" in sentence for sentence in damage)
    with BagReader(bag) as reader:
        numbers = [message.segment for message in reader.messages()]
        elapsed = [message.elapsed_ns for message in reader.messages()]
        for named, back in zip(reader.set_backs, backs, strict=True):
            assert back * 1e-9 - 0.05 < named <= back * 1e-9
        ran = sum(segment[-1].time_ns - segment[0].time_ns for segment in segments)
        assert reader.seconds == pytest.approx(ran * 1e-9)
    assert numbers == [number for number, segment in enumerate(segments) for _ in segment]
    assert elapsed == sorted(elapsed) and elapsed[0] == 0 and elapsed[-1] == ran


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    messages=st.lists(
        st.builds(
            Said,
            time_ns=st.one_of(st.integers(0, 3 * SECOND), st.integers(0, 2**64 - 1)),
            topic=st.sampled_from(TOPICS),
            text=st.just("x"),
        ),
        min_size=1,
        max_size=60,
    )
)
def test_whatever_the_times_are_each_message_comes_once_and_each_segment_in_order(tmp_path, messages):
    messages = [message._replace(text=str(number)) for number, message in enumerate(messages)]
    with BagReader(write_mcap(tmp_path / "a.mcap", messages)) as reader:
        found = list(reader.messages())
        assert sorted(int(own.message.data) for own in found) == list(range(len(messages)))
        by_segment: dict[int, list[int]] = {}
        for own in found:
            by_segment.setdefault(own.segment, []).append(own.time_ns)
        assert list(by_segment) == list(range(len(reader.set_backs) + 1))
        for times in by_segment.values():
            clipped = [min(time, 2**62) for time in times]
            assert clipped == sorted(clipped)
        assert len(reader.damage) == len(reader.set_backs)


@pytest.mark.parametrize("how", ["ours", "rosbags", "sqlite3"])
def test_the_sentence_says_file_place_seconds_and_both_times(tmp_path, how):
    messages = said(120)
    messages = [m._replace(time_ns=START + m.time_ns - (59 * SECOND if n >= 60 else 0)) for n, m in enumerate(messages)]
    found, (sentence,) = read(write(tmp_path / "bag", messages, how))
    assert found == messages
    ending = "db3" if how == "sqlite3" else "mcap"
    assert f"{ending}: the clock was set back by 58.990 s while it was recorded, behind its message 60, " in sentence
    assert "from 1700000001.590 s to 1699999942.600 s: no message is lost" in sentence
    found, (sentence,) = read(write(tmp_path / "split", messages, how, split=60))
    assert found == messages and "bag_1" in sentence and "before its first message" in sentence


@pytest.mark.parametrize(("back", "named"), [(SET_BACK, 0), (SET_BACK + 1, 1)])
def test_the_limit_is_what_one_topic_may_go_back_by(tmp_path, back, named):
    times = [0, 100 * MS, *(100 * MS - back + step * MS for step in range(0, 120, 10))]
    messages = [Said(START + time, "/a", str(number)) for number, time in enumerate(times)]
    found, damage = read(write_mcap(tmp_path / "a.mcap", messages))
    assert len(damage) == named
    assert found == (messages if named else in_order(messages))


def test_topics_written_one_after_the_other_are_no_clock_set_back(tmp_path):
    messages = said(300, topics=TOPICS)
    by_topic = sorted(messages, key=lambda message: message.topic)
    assert read(write_mcap(tmp_path / "a.mcap", by_topic)) == (messages, ())


def test_a_message_that_came_a_second_late_is_no_clock_set_back(tmp_path):
    messages = said(300, topics=TOPICS)
    shuffled = [*messages[:50], *messages[51:150], messages[50], *messages[150:]]
    assert read(write_mcap(tmp_path / "a.mcap", shuffled)) == (messages, ())


def test_two_streams_of_one_topic_of_which_one_lags_are_no_clock_set_back(tmp_path):
    messages = [Said(START + number * 10 * MS, "/tf", str(number)) for number in range(200)]
    lagging = [
        message for pair in zip(messages[20::2], messages[1::2], strict=False) for message in pair
    ]  # 0.2 s behind
    found, damage = read(write_mcap(tmp_path / "a.mcap", lagging))
    assert (found, damage) == (in_order(lagging), ())


def test_a_rate_is_the_median_of_the_gaps_whatever_pauses_and_whenever_it_begins(tmp_path):
    early = [Said(START + number * 100 * MS, "/early", "x") for number in range(600)]
    late = [Said(START + 50 * SECOND + number * 20 * MS, "/late", "x") for number in range(50)]
    late += [message._replace(time_ns=message.time_ns + 9 * SECOND) for message in late]
    alone = [Said(START + 55 * SECOND, "/alone", "x")]
    write_ours(tmp_path / "bag", in_order([*early, *late, *alone]))
    with BagReader(tmp_path / "bag") as reader:
        rates = {name: round(topic.rate, 6) for name, topic in reader.topics.items()}
    assert rates == {"/early": 10.0, "/late": 50.0, "/alone": 0.0}

"""Chunks do not jump, over real DDS: the real policy behind a delay, read off ``~/action`` alone.

What holds in every story: a command at the beginning of a chunk, or after standing still, differs from the command
before by no more than ``control.max_linear_seam``; no action is played twice, none of an earlier chunk after a later
one; and a chunk begins at the number of actions played since its picture.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from faulty_worker import FaultyWorker
from harness import wait_until
from vla_rig import ACTION, LIMIT, REPORT, TWIST, Rig, gentle, running_rig

pytestmark = pytest.mark.ros

BOUND = 0.03  # m/s, far below what random weights ask for
TICK = 0.05  # s
STEADY = 3 * TICK
HORIZON = 8
NAME = "control.max_linear_seam"
WAITING = "the policy has not answered yet"


@pytest.fixture(scope="module")
def module_rig(ros_domain: int, faulty: FaultyWorker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    from tiny_checkpoint import make_tiny_checkpoint

    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))
    fast = {"safety.max_linear_speed": 5.0, "safety.max_linear_acceleration": 1000.0, NAME: BOUND}
    with running_rig(gentle(checkpoint) | fast | {"model.python": faulty.python}) as rig:
        yield rig


@pytest.fixture
def rig(module_rig: Rig, faulty: FaultyWorker) -> Iterator[Rig]:
    """The rig moving, from rest, behind a steady delay of three ticks; afterwards every command since is judged."""
    faulty.set("delay", seconds=STEADY)
    module_rig.robot.silent.clear()
    module_rig.bring_to("inactive")
    assert module_rig.set(
        control__actions_per_inference=1,
        control__max_linear_seam=BOUND,
        safety__max_linear_acceleration=1000.0,
    )[0]
    begun = module_rig.heard(ACTION)
    module_rig.move()
    yield module_rig
    judge(module_rig, begun)


def velocity(action: Any) -> np.ndarray:
    return np.array([action.translation.x, action.translation.y, action.translation.z]) / action.time_step


def inference_of(action: Any) -> tuple[int, int]:
    return action.episode, action.inference


def judge(rig: Rig, begun: int) -> None:
    """Hold what the module's docstring says for all messages from number ``begun`` on."""
    actions = rig.peer.received(ACTION)[begun:]
    before, last = np.zeros(3), None
    played: list[tuple[int, int, int]] = []
    counts: Counter[int] = Counter()  # actions played of each episode
    observed_at: dict[tuple[int, int], int] = {}
    for action in (action for action in actions if action.stop_reason or action.first_tick):
        if WAITING in action.stop_reason:  # slowing down
            assert np.linalg.norm(velocity(action)) <= np.linalg.norm(before)
        elif action.stop_reason:
            assert not velocity(action).any()
        else:
            if last is None or last.stop_reason or inference_of(last) != inference_of(action):
                assert np.linalg.norm(velocity(action) - before) <= BOUND + 1e-9, (last, action)
            place = (*inference_of(action), action.chunk_index)
            assert not played or place > played[-1], f"{place} after {played[-1]}"
            played.append(place)
            at = counts[action.episode] - action.chunk_index  # actions played when the picture was taken
            assert observed_at.setdefault(inference_of(action), at) == at
            counts[action.episode] += 1
        before, last = velocity(action), action
    for (episode, inference), at in observed_at.items():
        assert at >= max((other for (e, i), other in observed_at.items() if e == episode and i < inference), default=0)


def after(rig: Rig, begun: int) -> list[Any]:
    return rig.peer.received(ACTION)[begun:]


def wait_for_inferences(rig: Rig, count: int) -> list[Any]:
    """Return the reports of the next ``count`` inferences."""
    begun = rig.heard(REPORT)
    wait_until(lambda: rig.heard(REPORT) >= begun + count, LIMIT, f"{count} inferences")
    return rig.peer.received(REPORT)[begun:]


@pytest.mark.parametrize(("m", "ticks"), [(1, 3), (3, 2)])
def test_behind_a_steady_delay_chunks_are_joined_within_the_bound(rig, faulty, m, ticks):
    faulty.set("delay", seconds=(ticks - 0.5) * TICK)  # with the model's own time, answers come ticks after
    assert rig.set(control__actions_per_inference=m)[0]
    wait_for_inferences(rig, 2)
    begun, begun_reports = rig.heard(ACTION), rig.heard(REPORT)
    assert {report.actions_to_play for report in wait_for_inferences(rig, 1)} == {m}

    def joined() -> list[Any]:
        """Commands that began a chunk behind one already played in part; a late machine may start others afresh."""
        told = after(rig, begun)
        pairs = [(b, a) for b, a in zip(told, told[1:], strict=False) if inference_of(a) != inference_of(b)]
        return [a for b, a in pairs if not b.stop_reason and not a.stop_reason and a.chunk_index > 0]

    wait_until(lambda: len(joined()) >= 6, LIMIT, "6 chunks joined behind actions played since their pictures")
    assert {action.episode for action in after(rig, begun)} == {joined()[0].episode}
    wait_until(lambda: any(NAME in action.limits for action in joined()), LIMIT, f"a chunk joined within {NAME}")
    behind = {inference_of(action) for action in joined()}
    seams = [report.seam for report in rig.peer.received(REPORT)[begun_reports:] if inference_of(report) in behind]
    assert seams and all(np.isfinite(seam) and seam > 0.0 for seam in seams)


def test_one_latency_ten_times_the_mean_runs_dry_and_goes_on_in_the_same_episode(rig, faulty):
    wait_for_inferences(rig, 3)
    begun = rig.heard(ACTION)
    faulty.set("delay", seconds=10 * STEADY, times=1)
    dry = rig.wait_for_stop(WAITING, begun)
    faulty.set("delay", seconds=STEADY)
    again = rig.wait_for_motion()
    assert again.episode == dry.episode and 0 < again.chunk_index < HORIZON
    wait_for_inferences(rig, 3)


def test_a_queue_that_runs_dry_again_and_again_starts_gently_each_time(rig, faulty):
    faulty.set("delay", seconds=12 * TICK)
    begun = rig.heard(ACTION)
    wait_for_inferences(rig, 4)
    told = after(rig, begun)
    pairs = list(zip(told, told[1:], strict=False))
    starts = [a for b, a in pairs if b.stop_reason and not a.stop_reason]
    assert len(starts) >= 2 and {action.episode for action in told} == {told[0].episode}
    assert all(WAITING in action.stop_reason for action in told if action.stop_reason)


def test_with_m_as_long_as_the_chunk_no_tick_stands_still_once_the_latency_is_known(rig, faulty):
    faulty.set("delay", seconds=1.5 * TICK)
    assert rig.set(control__actions_per_inference=HORIZON)[0]
    wait_for_inferences(rig, 4)
    begun = rig.heard(ACTION)

    def in_a_row() -> int:
        """Longest run of chunks without a tick that stands still; an answer may be late on a busy machine."""
        longest, chunks = 0, set()
        for action in after(rig, begun):
            chunks = set() if action.stop_reason else chunks | {inference_of(action)}
            longest = max(longest, len(chunks))
        return longest

    wait_until(lambda: in_a_row() >= 6, LIMIT, "6 chunks in a row that none ran dry of")


def test_where_the_latency_exceeds_the_chunk_the_arm_slows_down_and_the_rate_that_fits_is_named(rig, faulty):
    change = 0.5 * TICK  # m/s a tick
    assert rig.set(safety__max_linear_acceleration=0.5)[0]
    rig.wait_for_motion()
    faulty.set("delay", seconds=12 * TICK)
    begun, begun_twists = rig.heard(ACTION), rig.heard(TWIST)

    def named(status: Any) -> float:
        """The rate that would fit; a busy machine may have exceeded the chunk before the delay did."""
        told = status.message.partition("At most ")[2]
        return float(told.split()[0]) if told and status.level == status.ERROR else np.inf

    fits = (HORIZON // 2) / (12 * TICK)
    rig.wait_for_status("inference", lambda status: 0.0 < named(status) <= fits, f"ERROR with at most {fits:g}")

    def slowing() -> list[Any]:
        return [a for a in after(rig, begun) if WAITING in a.stop_reason and velocity(a).any()]

    wait_until(lambda: len(slowing()) >= 2, LIMIT, "two ticks of slowing down")
    twists = [twist.twist.linear for twist in rig.peer.received(TWIST)[begun_twists:]]
    steps = np.diff([[twist.x, twist.y, twist.z] for twist in twists], axis=0)
    assert np.linalg.norm(steps, axis=1).max() <= change + 1e-9
    assert {action.stop_reason for action in slowing()} == {slowing()[0].stop_reason}


@pytest.mark.parametrize("delay", [0.0, STEADY], ids=["within the tick", "three ticks"])
def test_a_new_instruction_in_the_middle_of_a_chunk_plays_nothing_of_the_old_one(rig, faulty, delay):
    faulty.set("delay", seconds=delay)
    wait_for_inferences(rig, 3)
    begun = rig.heard(ACTION)
    old = rig.peer.wait_for(ACTION, lambda action: action.chunk_index >= (2 if delay else 0), LIMIT, "a chunk", begun)
    rig.instruct("open the drawer")
    rig.peer.wait_for(
        ACTION,
        lambda action: action.episode > old.episode and not action.stop_reason,
        LIMIT,
        "the new episode",
        begun,
    )
    told = after(rig, begun)
    assert [action.episode for action in told] == sorted(action.episode for action in told)
    rig.instruct()


def test_a_pause_by_deactivating_ends_with_one_zero_and_resumes_with_a_new_chunk(rig):
    assert rig.change("deactivate")
    begun = rig.heard(ACTION)
    assert rig.change("activate")
    resumed = rig.wait_for_motion()
    assert resumed.inference == 1 and resumed.chunk_index == 0
    assert not any(action.stop_reason == "" and action.episode < resumed.episode for action in after(rig, begun))


def test_a_pause_by_a_silent_camera_resumes_with_a_new_chunk(rig):
    rig.robot.silent.add("image")
    stop = rig.wait_for_stop("has stopped")
    begun = rig.heard(ACTION)
    rig.robot.silent.clear()
    resumed = rig.wait_for_motion()
    assert resumed.episode >= stop.episode and resumed.inference == 1 and resumed.chunk_index == 0
    assert not any(action.stop_reason == "" and action.episode < resumed.episode for action in after(rig, begun))


def test_numbers_that_contradict_the_policy_are_refused_together_where_they_are_set(rig):
    wanted = {"control__actions_per_inference": 64, "control__rate": 30.0}
    accepted, reason = rig.set(**wanted)
    assert not accepted
    for part in ("control.rate is 30 Hz", "time_step in the", "is 64, but the policy's chunks have 8 actions"):
        assert part in reason
    rig.bring_to("unconfigured")
    assert rig.set(**wanted)[0], "no policy is loaded that they could contradict"
    assert not rig.change("configure")
    rig.wait_for_error("worker", reason)
    assert rig.set(control__actions_per_inference=1, control__rate=20.0)[0]

"""What each dynamic parameter changes on the next step, and where that is seen: the table of test_parameter_effects.

Every parameter of settings.py but ``model.*`` must have an entry. An entry begins from :data:`BASE`, puts its own
``context`` in force, and sets the one parameter to ``value``.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from vla_rig import ACTION, DIAGNOSTICS, LIMIT, NODE, REPORT, TWIST, Rig, wait_steadily

# Skips wherever guidance lets it, which is everywhere: nothing is verified, no allow point moves, no warm-up.
BASE: dict[str, Any] = {
    "skipping.threshold": 0.0,
    "guidance.warmup": 0,
    "guidance.prior": False,
    "guidance.verify": False,
    "guidance.step": 1e-4,
    "guidance.dead_band": -1.0,
    "guidance.stride": "integral",
    "guidance.verify_on": "any",
    "guidance.verify_threshold": 1e-6,
    "safety.max_arrival_age": 1.0,
    "safety.max_stamp_age": 2.0,
    "safety.max_camera_skew": 1.0,
    "safety.max_consecutive_failures": 1000,
    "diagnostics.period": 0.1,
}
SILENCE = 1.0  # s of being inactive
SHIFT = 0.5  # s by which stamps are put wrong


@dataclass(frozen=True)
class Effect:
    """The effect of setting one parameter.

    With ``every`` each message from the next step on fits, and some message before does not; without it some message
    from the next step on fits, and none before does.
    """

    value: Any
    topic: str
    fits: Callable[[Any], bool]
    every: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Rig], None] = lambda rig: None  # before it is set
    act: Callable[[Rig], None] = lambda rig: None  # after it is set


def limited_by(name: str) -> Callable[[Any], bool]:
    return lambda action: name in action.limits


def stopped_by(text: str) -> Callable[[Any], bool]:
    return lambda action: text in action.stop_reason


def allow_points_moved(report: Any) -> bool:
    return list(report.allow_points) != list(report.block_first)


def values(array: Any, part: str) -> dict[str, str]:
    status = next((status for status in array.status if status.name == f"{NODE}: {part}"), None)
    return {pair.key: pair.value for pair in status.values} if status else {}


def p50_is_max(array: Any) -> bool:
    found = values(array, "inference")
    return "total p50 [ms]" in found and found["total p50 [ms]"] == found["total max [ms]"]


def slower_than(seconds: float) -> Callable[[Any], bool]:
    """Return a law of /diagnostics: at least ``seconds`` have passed since the message before."""
    before: list[float] = []

    def fits(array: Any) -> bool:
        if not any(status.name.startswith(f"{NODE}: ") for status in array.status):
            return False
        now = array.header.stamp.sec + array.header.stamp.nanosec * 1e-9
        passed = now - before[-1] if before else 0.0
        before.append(now)
        return passed >= seconds

    return fits


def pause(rig: Rig) -> None:
    """Be inactive for a while."""
    assert rig.change("deactivate")
    wait_steadily(SILENCE)
    assert rig.change("activate")


def run_for(inferences: int) -> Callable[[Rig], None]:
    """Return a preparation: wait until the episode has so many inferences behind it."""
    return lambda rig: rig.peer.wait_for(
        REPORT, lambda r: r.inference >= inferences, LIMIT, "history", rig.heard(REPORT)
    )


def reset(rig: Rig) -> None:
    from std_srvs.srv import Trigger

    assert rig.peer.call(f"{NODE}/reset", Trigger.Request(), LIMIT).success


def shift(*sources: str, by: float) -> Callable[[Rig], None]:
    """Return a preparation: put stamps wrong, and wait until the node has acted upon such an image."""

    def prepare(rig: Rig) -> None:
        rig.robot.shift.update(dict.fromkeys(sources, by))
        rig.peer.wait_for(REPORT, None, LIMIT, "a report", rig.heard(REPORT) + 4)

    return prepare


def camera_fails_and_comes_back(rig: Rig) -> None:
    before = rig.heard(ACTION)
    rig.robot.silent.add("image")
    rig.wait_for_stop("/image has stopped", before)
    rig.robot.silent.clear()


def sway(rig: Rig) -> None:
    rig.worker.set("sway")  # each wall is met, whichever way the policy would move


GUIDED = {"guidance.prior": True}
BOX = {"safety.workspace_box": True}
VERIFIED = {"guidance.verify": True}
UNMOVED = {"guidance.verify_threshold": 100.0}  # no fall of continuity is verified

EFFECTS: dict[str, Effect] = {
    "control.rate": Effect(40.0, ACTION, lambda action: not action.first_tick and not action.stop_reason),
    "control.actions_per_inference": Effect(8, ACTION, lambda action: action.chunk_index >= 4),
    # each inference begins later than it may end: nothing is begun that need not be
    "control.budget_ms": Effect(
        100.0, REPORT, lambda report: report.budget_cut, context={"skipping.threshold": 1.0},
        prepare=lambda rig: rig.worker.set("delay", seconds=0.2),
    ),
    "control.action_scale": Effect(0.0, ACTION, lambda action: action.translation.x == 0.0, every=True),
    "control.ramp_in": Effect(10.0, ACTION, limited_by("control.ramp_in"), prepare=reset),
    "control.max_linear_seam": Effect(
        1e-4, ACTION, limited_by("control.max_linear_seam"), context={"control.max_linear_seam": 0.0}
    ),
    "control.max_angular_seam": Effect(
        1e-4, ACTION, limited_by("control.max_angular_seam"), context={"control.max_angular_seam": 0.0}
    ),
    "control.command_frame": Effect("tool", TWIST, lambda twist: twist.header.frame_id == "tool", every=True),
    "control.instruction": Effect(
        "open the drawer",
        REPORT,
        lambda report: report.instruction_hash == sha256(b"open the drawer").hexdigest(),
        every=True,
    ),
    "skipping.rule": Effect(
        "static",
        REPORT,
        lambda report: report.allow_points == report.skip_points and not report.verified,
        every=True,
        context={"skipping.threshold": 1.0},
    ),
    "skipping.enabled": Effect(
        False,
        REPORT,
        lambda report: report.full_depth_reason == "skipping disabled" and all(report.executed),
        every=True,
    ),
    "skipping.threshold": Effect(
        1.0, REPORT, lambda report: set(report.skip_points) == {-1} and not report.full_depth_reason, every=True
    ),
    "guidance.window": Effect(
        100,
        REPORT,
        lambda report: abs(report.continuity_change) < 0.03,
        every=True,
        context={"guidance.window": 1},
        prepare=run_for(40),
    ),
    # where the prior moved nothing for a while, allow points are where a reset has put them
    "guidance.step": Effect(1e-4, REPORT, allow_points_moved, context=GUIDED | {"guidance.step": 100.0}, prepare=reset),
    "guidance.verify_threshold": Effect(1e-6, REPORT, lambda report: report.verified, context=VERIFIED | UNMOVED),
    "guidance.dead_band": Effect(
        -1.0, REPORT, allow_points_moved, context=GUIDED | {"guidance.dead_band": 100.0}, prepare=reset
    ),
    "guidance.stride": Effect(
        "paper", REPORT, allow_points_moved, context=GUIDED | {"guidance.step": 100.0}, prepare=reset
    ),
    "guidance.rotation_weight": Effect(100.0, REPORT, lambda report: report.continuity < -1.0, every=True),
    "guidance.gripper_weight": Effect(100.0, REPORT, lambda report: report.continuity < -1.0, every=True),
    "guidance.warmup": Effect(1000, REPORT, lambda report: report.full_depth_reason == "warm-up", every=True),
    "guidance.verify_every": Effect(
        1, REPORT, lambda report: report.verify_reason == "in turn", context=VERIFIED | UNMOVED
    ),
    "guidance.verify_while": Effect(
        1e-6,
        REPORT,
        lambda report: report.verify_reason == "still apart",
        context=VERIFIED | UNMOVED | {"guidance.verify_every": 1},
    ),
    "guidance.verify_on": Effect(
        "first", REPORT, lambda report: report.verify_reason == "first drop", context=VERIFIED
    ),
    "guidance.prior": Effect(True, REPORT, allow_points_moved, prepare=reset),
    "guidance.verify": Effect(True, REPORT, lambda report: report.verified),
    "safety.max_arrival_age": Effect(0.02, ACTION, stopped_by("(safety.max_arrival_age)")),
    "safety.max_stamp_age": Effect(0.02, ACTION, stopped_by("(safety.max_stamp_age)")),
    "safety.max_clock_skew": Effect(
        0.1,
        ACTION,
        stopped_by("limit 0.1 s (safety.max_clock_skew)"),
        context={"safety.max_clock_skew": 10.0},
        prepare=shift("image", "wrist_image", "ee_pose", by=SHIFT),
    ),
    "safety.max_camera_skew": Effect(
        0.1, ACTION, stopped_by("(safety.max_camera_skew)"), prepare=shift("wrist_image", by=-SHIFT)
    ),
    "safety.max_consecutive_failures": Effect(
        1,
        DIAGNOSTICS,
        lambda array: "1 in a row: safety.max_consecutive_failures" in values(array, "worker").get("last cause", ""),
        prepare=lambda rig: rig.worker.set("raise"),
    ),
    "safety.auto_resume": Effect(
        False,
        ACTION,
        stopped_by("held until ~/reset (safety.auto_resume is false)"),
        act=camera_fails_and_comes_back,
    ),
    "safety.max_linear_speed": Effect(0.001, ACTION, limited_by("safety.max_linear_speed")),
    "safety.max_angular_speed": Effect(0.001, ACTION, limited_by("safety.max_angular_speed")),
    "safety.max_linear_acceleration": Effect(0.01, ACTION, limited_by("safety.max_linear_acceleration")),
    "safety.max_angular_acceleration": Effect(0.01, ACTION, limited_by("safety.max_angular_acceleration")),
    "safety.max_gripper_speed": Effect(0.01, ACTION, limited_by("safety.max_gripper_speed")),
    # the robot's hand stands at x 0, y 0.6, z 0.2
    "safety.workspace_box": Effect(
        True, ACTION, limited_by("safety.workspace_min_x"), context={"safety.workspace_min_x": 5.0}, act=sway
    ),
    "safety.workspace_min_x": Effect(5.0, ACTION, limited_by("safety.workspace_min_x"), context=BOX, act=sway),
    "safety.workspace_max_x": Effect(-5.0, ACTION, limited_by("safety.workspace_max_x"), context=BOX, act=sway),
    "safety.workspace_min_y": Effect(5.0, ACTION, limited_by("safety.workspace_min_y"), context=BOX, act=sway),
    "safety.workspace_max_y": Effect(-5.0, ACTION, limited_by("safety.workspace_max_y"), context=BOX, act=sway),
    "safety.workspace_min_z": Effect(5.0, ACTION, limited_by("safety.workspace_min_z"), context=BOX, act=sway),
    "safety.workspace_max_z": Effect(-5.0, ACTION, limited_by("safety.workspace_max_z"), context=BOX, act=sway),
    "diagnostics.period": Effect(0.5, DIAGNOSTICS, slower_than(0.4)),
    "diagnostics.while_inactive": Effect(False, DIAGNOSTICS, slower_than(SILENCE / 2), act=pause),
    "diagnostics.window": Effect(1, DIAGNOSTICS, p50_is_max),
}

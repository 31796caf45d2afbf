"""How action chunks, control ticks and the policy's answers fit into each other in time. No ROS, no clock.

One answer is under way at a time. It takes n actions from its picture to its chunk, so that the chunk is entered at its
(n + 1)th action at the latest, and n actions must be left when the next one is asked for: a chunk of H actions bridges
answers of about H / 2 actions and no longer ones, whatever ``control.actions_per_inference`` says.
"""

import math

from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.settings import AUTOMATIC, ControlSettings

ROUNDING = 1e-6  # relative; three times 0.05 s is three actions, not a little more


def ticks_per_action(rate: float, time_step: float) -> int:
    """Return for how many control ticks one action is played.

    Raises:
        SettingError: it is no whole number; names rates that are possible, and the time step that would suit.
    """
    ticks = round(rate * time_step)
    if ticks < 1 or not math.isclose(ticks, rate * time_step, rel_tol=ROUNDING):
        own, meant = 1.0 / time_step, max(ticks, 1) / rate
        raise SettingError(
            f"control.rate is {rate:g} Hz, but the policy gives an action each {time_step:g} s (time_step in the "
            f"checkpoint's config.json): it must be a whole multiple of {own:g} Hz, such as {own:g}, {2 * own:g} or "
            f"{3 * own:g}; for {rate:g} Hz the policy's time_step would have to be {meant:.9g} s"
        )
    return ticks


def require_actions(actions_per_inference: int, horizon: int) -> None:
    """Refuse to play more actions of a chunk than it has, or fewer than none; 0 stands for automatic.

    Raises:
        SettingError: both numbers, and what is possible.
    """
    if not AUTOMATIC <= actions_per_inference <= horizon:
        raise SettingError(
            f"control.actions_per_inference is {actions_per_inference}, but the policy's chunks have {horizon} "
            f"action{'s' if horizon > 1 else ''}: it must be from 1 to {horizon}, or 0 for automatic"
        )


def require_playable(control: ControlSettings, action: ActionSpec) -> None:
    """Refuse settings that contradict what the policy gives.

    Raises:
        SettingError: every contradiction, in one line.
    """
    faults = []
    try:
        ticks_per_action(control.rate, action.time_step)
    except SettingError as error:
        faults.append(str(error))
    try:
        require_actions(control.actions_per_inference, action.horizon)
    except SettingError as error:
        faults.append(str(error))
    if faults:
        raise SettingError("; ".join(faults))


def actions_during(latency: float, time_step: float) -> int:
    """Return how many actions begin at most within ``latency`` seconds."""
    return math.ceil(latency / time_step * (1.0 - ROUNDING))


def actions_begun(latency: float, until_next: float, time_step: float) -> int:
    """Return how many actions begin within ``latency`` s of now, the first of them in ``until_next`` s."""
    return 0 if latency < until_next else 1 + int((latency - until_next) / time_step)


def latency_fault(latency: float, action: ActionSpec) -> str:
    """Say that chunks of this policy cannot bridge the time that an answer takes, or "" where they can.

    Args:
        latency: s from picture to chunk; 0.0: unknown.
        action: the policy's.
    """
    most = action.bridged
    if actions_during(latency, action.time_step) <= most:
        return ""
    rate = math.floor(most / latency * 100.0) / 100.0
    return (
        f"an answer takes {latency * 1e3:.0f} ms (p95), but a chunk of {action.horizon} actions at "
        f"{1.0 / action.time_step:g} Hz bridges {most * action.time_step * 1e3:.0f} ms: the arm slows down and waits "
        f"at every chunk. At most {rate:g} actions a second fit: use a policy with a time_step of {1.0 / rate:.3g} s "
        "or more or with longer chunks, let more layers be skipped (lower skipping.threshold), or give it more "
        "threads (model.threads)"
    )

"""``/diagnostics``: five statuses, from a steady timer, in every state of the node. docs/diagnostics.md is their list.

A level is the worst of the time since the last message, so that a failed inference that recovered in between is still
seen; it rises at once and falls late. A value is one number or text, its unit stands in the key: ``total p50 [ms]``.
"""

import dataclasses
import math
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue

from dysl_vla_ros.control.chunk_time import actions_during, latency_fault
from dysl_vla_ros.interfaces import PolicyDescription
from dysl_vla_ros.nodes.levels import SteadyLevels
from dysl_vla_ros.nodes.parameters import Settings

if TYPE_CHECKING:
    from dysl_vla_ros.nodes.session import Session

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
PARTS = ("inference", "inputs", "commands", "clock", "worker")


class Diagnostics:
    """Makes the messages of one node.

    Args:
        node_name: fully qualified; without its first slash it is the prefix of the statuses' names.
    """

    def __init__(self, node_name: str) -> None:
        self._node_name = node_name.lstrip("/")
        self._levels = SteadyLevels()

    def build(
        self,
        state: str,
        last_cause: str,
        settings: Settings,
        faults: Mapping[str, int],
        lines_dropped: int,
        session: "Session | None",
    ) -> DiagnosticArray:
        """Make one message (its stamp is the caller's).

        Args:
            state: the lifecycle state's label.
            last_cause: why the last transition or step failed, "" where none did since the last good configure.
            settings: those in force.
            faults: exceptions in callbacks, counted by place.
            lines_dropped: lines of the log that did not reach the console.
            session: what is loaded; None while unconfigured.
        """
        name = self._node_name
        array = DiagnosticArray()
        if session is None:
            array.status = [_status(name, part, OK, "not configured", {}) for part in PARTS[:-1]]
        else:
            with session.loop.lock:
                array.status = [
                    _inference(name, settings, session),
                    _inputs(name, settings, session),
                    _commands(name, session),
                    _clock(name, session),
                ]
        array.status.append(_worker(name, state, last_cause, faults, lines_dropped, session))
        for status in array.status:
            status.level, status.message = self._levels.steady(status.name, status.level, status.message)
        return array


def _status(node_name: str, part: str, level: bytes, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    pairs = [
        KeyValue(key=key, value=f"{value:.4g}" if isinstance(value, float) else str(value))
        for key, value in values.items()
    ]
    return DiagnosticStatus(
        name=f"{node_name}: {part}", level=level, message=message, hardware_id=socket.gethostname(), values=pairs
    )


def values_in_effect(settings: Settings, description: PolicyDescription) -> dict[str, Any]:
    """Return the guidance values that 0.0 or "" stand for, as the worker resolves them."""
    resolved = settings.guidance.resolved(description.calibrated)
    names = [field.name for field in dataclasses.fields(resolved) if field.name in description.calibrated]
    return {f"guidance.{name} in effect": getattr(resolved, name) for name in names}


def _inference(node_name: str, settings: Settings, session: "Session") -> DiagnosticStatus:
    statistics, window = session.statistics, settings.diagnostics.window
    values: dict[str, Any] = {"inferences": statistics.inferences}
    for part, (p50, p95, largest) in statistics.timings(window).items():
        values |= {f"{part} p50 [ms]": p50, f"{part} p95 [ms]": p95, f"{part} max [ms]": largest}
    if (shares := statistics.skipping(window)) is not None:
        values |= {"share of layers skipped": shares[0], "share verified": shares[1], "share cut by budget": shares[2]}
    if (seams := statistics.seams(window)) is not None:
        values |= {"seam p95": seams[0], "seam largest": seams[1]}
    if (played := statistics.actions_to_play(window)) is not None:
        values["actions to play of a chunk"] = played
    missed = statistics.missed_share(window)
    action, latency = session.description.action, statistics.long_latency()
    values |= {
        "actions kept for the next answer": actions_during(latency, action.time_step),
        "share of missed deadlines": missed,
        "missed deadlines": statistics.missed_deadlines,
        "failures": statistics.failures,
        "outdated replies": statistics.outdated_replies,
        "last failure": statistics.last_failure,
    }
    values |= values_in_effect(settings, session.description)
    if failure := statistics.take_failure():
        return _status(node_name, "inference", ERROR, failure, values)
    if not session.loop.active:
        return _status(node_name, "inference", OK, "inactive", values)
    if fault := latency_fault(latency, action):
        return _status(node_name, "inference", ERROR, fault, values)
    if (long := statistics.long_step_ms(window)) > (budget := settings.control.budget_ms) > 0.0:
        message = (
            f"running; an inference takes {long:.1f} ms (p95), though layers are left out, more than control.budget_ms "
            f"of {budget:g}: {math.ceil(long)} would do; give the worker more threads, or a core of its own"
        )
        return _status(node_name, "inference", WARN, message, values)
    if statistics.often_missed.exceeded(missed):
        message = (
            f"running; {missed:.0%} of the replies came after the tick that waited for them: the model is slower than "
            "the control tick. Let more actions of a chunk be played (control.actions_per_inference) or more layers be "
            "skipped, or give it more threads"
        )
        return _status(node_name, "inference", WARN, message, values)
    return _status(node_name, "inference", OK, "running" if statistics.inferences else "no inference yet", values)


def _inputs(node_name: str, settings: Settings, session: "Session") -> DiagnosticStatus:
    loop, inputs = session.loop, session.inputs
    values: dict[str, Any] = {"instruction": loop.instruction.in_force}
    odd = session.graph.inputs + inputs.warnings() + ([loop.instruction.warning] if loop.instruction.warning else [])
    for source in inputs.sources:
        numbers = inputs.freshness.statistics(source, session.steady_now())
        values |= {
            f"{numbers.topic} rate [Hz]": numbers.rate,
            f"{numbers.topic} age [s]": numbers.age,
            f"{numbers.topic} received": numbers.received,
            f"{numbers.topic} dropped": numbers.dropped,
            f"{numbers.topic} refused": numbers.refused,
        }
        if numbers.last_refusal:
            values[f"{numbers.topic} last refusal"] = numbers.last_refusal
    level, message = OK, "inactive"
    if loop.active:
        reason, no_clock = loop.inputs_fault(), loop.clock.fault(settings.safety)
        refusals = [text for text in (loop.instruction.refusal, loop.observation_refusal) if text]
        if reason:
            level = WARN if loop.merely_starting or no_clock else ERROR
            message = "; ".join([reason, *session.graph.inputs, *refusals])
        elif refusals:
            level, message = WARN, "; ".join(refusals + odd)
        elif not loop.instruction.in_force:
            level, message = WARN, f"waiting for instruction on {inputs.instruction_topic}"
        elif odd:
            level, message = WARN, "; ".join(odd)
        else:
            message = "fresh"
    return _status(node_name, "inputs", level, message, values)


def _commands(node_name: str, session: "Session") -> DiagnosticStatus:
    loop, statistics = session.loop, session.statistics
    values: dict[str, Any] = {
        "episode": loop.episode,
        "commands": statistics.commands,
        "zero commands": statistics.zero_commands,
        "stops": statistics.stops,
        "last stop": statistics.last_stop,
        "late ticks": statistics.late_ticks,
        "share of late ticks": statistics.late_share(),
        "chunks too late": session.commander.late_chunks,
    }
    values |= {f"limited by {name} [ticks]": count for name, count in sorted(statistics.limits.items())}
    passed, walls = statistics.take_stop(), statistics.take_walls()
    if not loop.active:
        held = "; ~/hold will keep the arm still" if loop.held else ""
        return _status(node_name, "commands", OK, f"inactive: nothing is published{held}", values)
    if loop.stop_reason:
        level = WARN if loop.merely_waiting or loop.merely_starting else ERROR
        told = "; ".join([f"stopped: {loop.stop_reason}", *session.graph.outputs])
        return _status(node_name, "commands", level, told, values)
    if passed:
        level = WARN if passed == loop.last_refusal else ERROR
        return _status(node_name, "commands", level, f"playing again after: {passed}", values)
    odd = list(session.graph.outputs)
    if walls:
        odd.append(f"kept in the workspace by {', '.join(walls)}")
    if statistics.often_late.exceeded(statistics.late_share()):
        odd.append(f"{statistics.late_share():.0%} of the control ticks come late: is the machine overloaded?")
    if odd:
        return _status(node_name, "commands", WARN, "; ".join(["playing", *odd]), values)
    return _status(node_name, "commands", OK, "playing", values)


def _clock(node_name: str, session: "Session") -> DiagnosticStatus:
    clock, settings = session.loop.clock, session.loop.settings
    source = "/clock" if clock.simulated() else "system"
    values: dict[str, Any] = {
        "source": source,
        "rate [s/s]": clock.rate,
        "standing still [s]": clock.standing,
        "jumps": clock.jumps,
        "last jump": clock.last_jump,
    }
    jump = clock.take_jump()
    if doubled := clock.doubled():
        return _status(node_name, "clock", ERROR, doubled, values)
    if fault := clock.fault(settings.safety):
        return _status(node_name, "clock", WARN, fault, values)
    if jump:
        return _status(node_name, "clock", WARN, f"{jump}; a new episode has begun", values)
    return _status(node_name, "clock", OK, source, values)


def _worker(
    node_name: str,
    state: str,
    last_cause: str,
    faults: Mapping[str, int],
    lines_dropped: int,
    session: "Session | None",
) -> DiagnosticStatus:
    values: dict[str, Any] = {"state": state, "last cause": last_cause, "log lines dropped": lines_dropped}
    values |= {f"faults in {where}": count for where, count in sorted(faults.items())}
    if session is None:
        level = ERROR if last_cause else OK
        return _status(node_name, "worker", level, last_cause or f"none: the node is {state}", values)
    described = session.description
    values |= {
        "pid": session.client.pid,
        "family": described.family,
        "model hash": described.model_hash,
        "layers": described.layers_total,
        "static layers": len(described.static_layers),
        "request in flight [s]": session.client.busy_for(),
    }
    return _status(node_name, "worker", OK, f"loaded: {described.family}", values)

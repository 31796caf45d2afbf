"""``replay.json``: what a replay found, as plain values, and everything needed to find it again.

All but the key ``timings`` depends on recording, weights and settings alone, and comes out the same, bit for bit, on
one machine. ``moments`` holds one line for each frame that was used, so that a later replay can be compared with this
one, moment by moment.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.records.deviation import Measure, figures
from dysl_vla_ros.records.phases import PHASES, phases, speed_and_gripper
from dysl_vla_ros.replay.run import FULL, SKIPPING, Replay
from dysl_vla_ros.replay.tracks import PARTS, Track

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Criterion:
    """One thing that a replay must fulfil: a figure of the summary, and its limit."""

    name: str
    limit: float
    found: float
    passed: bool
    text: str  # what was found and what was allowed, in words


def summarise(replay: Replay, phase: NDArray[np.int8]) -> dict[str, Any]:
    """Return the figures of full depth and skipping that do not depend on the machine's speed."""
    full, skipping = replay.track(FULL), replay.track(SKIPPING)
    moments, measured = replay.moments, replay.measures
    summary: dict[str, Any] = {
        "inferences": len(moments),
        "layers": layer_figures(skipping),
        "deviation": figures(
            skipping.columns["action"],
            full.columns["action"],
            phase,
            measured,
            **{f"chunk_{measured[0].name}": moments["chunk_apart"][:, 1]},
        ),
        "recorded": None,
        "recorded_layers": None,
    }
    reported = moments["recorded_layers"] > 0
    if reported.any():
        summary["recorded_layers"] = {
            "frames": int(reported.sum()),
            "mean": float(moments["recorded_layers"][reported].mean()),
            "mean_here": float(skipping.columns["executed"][reported].sum(axis=1).mean()),
            "same_share": float(moments["same_layers"][reported].mean()),
        }
    if np.isfinite(moments["recorded"][:, 0]).any():
        summary["recorded"] = {
            "full": figures(moments["recorded_full"], moments["recorded"], phase, measured),
            "skipping": figures(moments["recorded_skipping"], moments["recorded"], phase, measured),
        }
    return summary


def phase_of(replay: Replay) -> NDArray[np.int8]:
    """Return the phase of every moment, read off the full-depth actions."""
    times, episodes = replay.moments["time"], replay.moments["episode"]
    speed, gripper = speed_and_gripper(replay.track(FULL).columns["action"], times, episodes, replay.action)
    return phases(speed, gripper, times, episodes)


def layer_figures(track: Track, rows: Any = slice(None)) -> dict[str, Any]:
    """Return how many layers one side ran; verification's second pass counts."""
    calls, verified = track.columns["calls"][rows], track.columns["verified"][rows]
    mean = float(calls.mean())
    return {
        "mean": mean,
        "total": track.layers_total,
        "reduction": 1.0 - mean / track.layers_total,
        "verified_share": float(verified.mean()),
    }


def timing_figures(track: Track, rows: Any = slice(None)) -> dict[str, Any]:
    """Return p50 and p99 of each part in milliseconds; ``verify`` over the verified inferences alone."""
    values = track.columns["milliseconds"][rows]
    verified = track.columns["verified"][rows]
    table: dict[str, Any] = {}
    for place, part in enumerate(PARTS):
        own = values[verified, place] if part == "verify" else values[:, place]
        p50, p99 = np.percentile(own, (50, 99)) if own.size else (math.nan, math.nan)
        table[part] = None if math.isnan(p50) else {"p50": float(p50), "p99": float(p99)}
    return table


def judge(
    summary: Mapping[str, Any],
    timings: Mapping[str, Any],
    lead: Measure,
    max_deviation: float | None,
    max_p99_ms: float | None,
    min_layer_reduction: float | None,
) -> list[Criterion]:
    """Return the criteria that were asked for, in the order in which a failure is named; deviation is of ``lead``."""
    found = []
    if max_deviation is not None:
        value = summary["deviation"]["all"][lead.name]["p95"]
        text = f"p95 of the deviation of {lead.words} from full depth is {value:.3g} {lead.unit}, "
        text += f"allowed are {max_deviation:g} {lead.unit}"
        found.append(Criterion("max-deviation", max_deviation, value, value <= max_deviation, text))
    if max_p99_ms is not None:
        value = timings[SKIPPING]["total"]["p99"]
        text = f"p99 of an inference with skipping is {value:.1f} ms, allowed are {max_p99_ms:g} ms"
        found.append(Criterion("max-p99-ms", max_p99_ms, value, value <= max_p99_ms, text))
    if min_layer_reduction is not None:
        value = summary["layers"]["reduction"]
        text = f"skipping saves {value:.1%} of the layers, wanted are {min_layer_reduction:.1%}"
        passed = value >= min_layer_reduction
        found.append(Criterion("min-layer-reduction", min_layer_reduction, value, passed, text))
    return found


def write_replay(
    path: Path, about: Mapping[str, Any], timings: Mapping[str, Any], replay: Replay, phase: NDArray[Any]
) -> None:
    """Write ``replay.json``, whole or not at all: ``about``, the moments one a line, and last ``timings``."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8") as out:
            head = json.dumps({"format_version": FORMAT_VERSION, **plain(about)}, indent=2, allow_nan=False)
            out.write(head.removesuffix("\n}") + ',\n  "moments": [')
            _write_lines(out, moment_entries(replay, phase))
            rows = {name: replay.track(name).columns["milliseconds"] for name in (FULL, SKIPPING)}
            tail = json.dumps(plain(timings), indent=2, allow_nan=False).replace("\n", "\n  ")
            out.write(',\n  "timings": ' + tail.removesuffix("\n  }"))
            out.write(f',\n    "parts": {json.dumps(list(PARTS))},\n    "moments": [')
            _write_lines(
                out, ({n: _rounded(own[row]) for n, own in rows.items()} for row in range(len(replay.moments)))
            )
            out.write("\n  }\n}\n")

    write_atomically(path, write)


def moment_entries(replay: Replay, phase: NDArray[Any]) -> Iterator[dict[str, Any]]:
    """Yield each moment as plain values."""
    moments, full = replay.moments, replay.track(FULL)
    sides = [replay.track(name) for name in replay.sides if name != FULL]
    for row in range(len(moments)):
        recorded = moments["recorded"][row]
        yield {
            "time": round(float(moments["time"][row]), 6),
            "stamp": int(moments["stamp"][row]),
            "episode": int(moments["episode"][row]),
            "phase": PHASES[phase[row]],
            FULL: {"action": _floats(full.columns["action"][row])},
            **{side.name: side_entry(side, row) for side in sides},
            "recorded": _floats(recorded) if np.isfinite(recorded[0]) else None,
        }


def side_entry(track: Track, row: int) -> dict[str, Any]:
    """Return what one side did at one moment as plain values."""
    columns = track.columns
    return {
        "action": _floats(columns["action"][row]),
        "calls": int(columns["calls"][row]),
        "executed": "".join("1" if ran else "0" for ran in columns["executed"][row]),
        "allow": columns["allow"][row].tolist(),
        "skip": columns["skip"][row].tolist(),
        "controllers": _floats(columns["controllers"][row]),
        "continuity": _float(columns["continuity"][row]),
        "change": _float(columns["change"][row]),
        "candidate": _float(columns["candidate"][row]),
        "verified": bool(columns["verified"][row]),
        "verify_reason": track.text("verify_reason", row),
        "full_depth_reason": track.text("full_depth_reason", row),
        "played": int(columns["played"][row]),
        "gap": bool(columns["gap"][row]),
    }


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it: numpy's scalars as Python's, what is not finite as null."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, str | bool) or value is None:
        return value
    if isinstance(value, Sequence | np.ndarray):
        return [plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_lines(out: TextIO, entries: Iterator[dict[str, Any]]) -> None:
    for place, entry in enumerate(entries):
        out.write(("," if place else "") + "\n    " + json.dumps(entry, separators=(",", ":"), allow_nan=False))
    out.write("\n  ]")


def _float(value: Any) -> float | None:
    """Return the shortest number that reads back as the same one of its precision; null where it is not finite."""
    return float(str(value)) if math.isfinite(value) else None


def _floats(values: NDArray[Any]) -> list[float | None]:
    return [_float(value) for value in values]


def _rounded(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 3) for value in values]

"""What one side of a replay gave, as columns: some 300 bytes an inference, so that an hour of a robot fits in memory.

A *side* is one way of running the policy: at full depth, with skipping, with another checkpoint or other settings.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.interfaces import PolicyDescription, SkipTrace, StepResult, Timings
from dysl_vla_ros.records.trace import InferenceRecord

PARTS = ("vision", "stack", "head", "verify", "total")
_FIRST_CAPACITY = 256


class Columns:
    """Rows of one numpy record type, appended one by one."""

    def __init__(self, dtype: Any) -> None:
        """Begin with no row."""
        self._rows = np.zeros(_FIRST_CAPACITY, dtype)
        self._count = 0

    def append(self, **values: Any) -> None:
        """Add a row; what is not named is zero."""
        if self._count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        for name, value in values.items():
            self._rows[name][self._count] = value
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Return a column, a view."""
        return self._rows[name][: self._count]


class Track:
    """The results of one side, one a moment."""

    def __init__(self, name: str, description: PolicyDescription) -> None:
        """Begin a track for results of this policy."""
        self.name = name
        self.layers_total = description.layers_total
        self.blocks = description.blocks
        self._texts: list[str] = [""]
        blocks, dimensions = len(description.blocks), description.action.dimensions
        self.columns = Columns(
            [
                ("action", np.float32, (dimensions,)),  # the one that would be played first, physical units
                ("calls", np.int32),
                ("executed", bool, (description.layers_total,)),
                ("allow", np.int16, (blocks,)),
                ("skip", np.int16, (blocks,)),
                ("controllers", np.float32, (blocks,)),
                ("continuity", np.float64),
                ("change", np.float64),
                ("candidate", np.float64),
                ("verified", bool),
                ("verify_reason", np.uint8),
                ("full_depth_reason", np.uint8),
                ("milliseconds", np.float32, (len(PARTS),)),
                ("played", np.int32),  # actions of the chunk before, as guidance observed them
                ("gap", bool),
            ]
        )

    def __len__(self) -> int:
        return len(self.columns)

    def append(self, result: StepResult, played: int, gap: bool) -> None:
        """Add the result of one step."""
        trace = result.trace
        self.columns.append(
            action=result.chunk.actions[0],
            calls=trace.layer_calls,
            executed=trace.executed,
            allow=trace.allow_points,
            skip=trace.skip_points,
            controllers=trace.controller_outputs,
            continuity=trace.continuity,
            change=trace.continuity_change,
            candidate=trace.candidate_change,
            verified=trace.verified,
            verify_reason=self._number(trace.verify_reason),
            full_depth_reason=self._number(trace.full_depth_reason),
            milliseconds=[getattr(result.timings, part) for part in PARTS],
            played=played,
            gap=gap,
        )

    def append_entry(self, entry: Mapping[str, Any], milliseconds: Sequence[float]) -> None:
        """Add what :func:`~dysl_vla_ros.replay.results.side_entry` wrote."""
        floats = ("action", "controllers", "continuity", "change", "candidate")
        alike = ("calls", "allow", "skip", "verified", "played", "gap")
        self.columns.append(
            **{name: np.array(entry[name], dtype=np.float64) for name in floats},  # null becomes NaN
            **{name: entry[name] for name in alike},
            executed=[flag == "1" for flag in entry["executed"]],
            verify_reason=self._number(entry["verify_reason"]),
            full_depth_reason=self._number(entry["full_depth_reason"]),
            milliseconds=milliseconds,
        )

    def text(self, column: str, row: int) -> str:
        """Return ``verify_reason`` or ``full_depth_reason`` of one inference."""
        return self._texts[self.columns[column][row]]

    def records(self, times: NDArray[np.float64], rows: Sequence[int]) -> list[InferenceRecord]:
        """Return inferences as the charts take them; ``times`` are those of ``rows``, in s."""
        return [self._record(float(time), row) for time, row in zip(times, rows, strict=True)]

    def _record(self, time: float, row: int) -> InferenceRecord:
        rows = self.columns
        trace = SkipTrace(
            executed=tuple(map(bool, rows["executed"][row])),
            layer_calls=int(rows["calls"][row]),
            allow_points=tuple(map(int, rows["allow"][row])),
            skip_points=tuple(map(int, rows["skip"][row])),
            controller_outputs=tuple(map(float, rows["controllers"][row])),
            continuity=float(rows["continuity"][row]),
            continuity_change=float(rows["change"][row]),
            candidate_change=float(rows["candidate"][row]),
            verified=bool(rows["verified"][row]),
            verify_reason=self.text("verify_reason", row),
            full_depth_reason=self.text("full_depth_reason", row),
        )
        timings = Timings(**dict(zip(PARTS, map(float, rows["milliseconds"][row]), strict=True)))
        return InferenceRecord(time, trace, timings)

    def _number(self, text: str) -> int:
        if text not in self._texts:
            self._texts.append(text)
        return self._texts.index(text)

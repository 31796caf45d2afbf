"""``--rerun FILE.rrd``: pictures, layers, continuity, actions and deviations for the Rerun viewer, on bag time."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from dysl_vla_ros.errors import BagError
from dysl_vla_ros.interfaces import PolicyDescription, StepResult
from dysl_vla_ros.recordings.moments import Moment
from dysl_vla_ros.records.deviation import measures
from dysl_vla_ros.replay.run import FULL

TIMELINE = "bag_time"


class RerunLog:
    """Writes each moment as it comes; use it in a ``with`` block."""

    def __init__(self, path: Path, description: PolicyDescription, told: str = "") -> None:
        """Open the file; ``told`` is what the user said of the recording, kept in it.

        Raises:
            BagError: rerun is not installed, or the file cannot be written.
        """
        if importlib.util.find_spec("rerun") is None:
            raise BagError("--rerun needs the Rerun SDK: pip install rerun-sdk")
        import rerun

        self._rerun: Any = rerun
        self._path = path
        self._blocks = description.blocks
        self._names, self._measures = description.action.names, measures(description.action)
        self._stream = rerun.RecordingStream("dysl_vla_replay")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            self._stream.save(path)
            if told:
                text = f"the user said of the recording: {told}"
                self._stream.log("recording", rerun.TextDocument(text), static=True)
        except OSError as error:
            raise BagError(f"--rerun {path} cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> "RerunLog":
        return self

    def __exit__(self, *_: Any) -> None:
        self._stream.flush()
        self._stream.disconnect()

    def watch(self, moment: Moment, results: dict[str, StepResult]) -> None:
        """Log one moment."""
        rerun, stream = self._rerun, self._stream
        stream.set_time(TIMELINE, duration=moment.time)
        for camera, picture in moment.observation.images.items():
            stream.log(f"camera/{camera}", rerun.Image(picture).compress(jpeg_quality=85))
        if moment.begins:
            stream.log("episode", rerun.TextLog(f"{moment.observation.instruction} ({moment.begins})"))
        full = results[FULL].chunk.actions[0]
        for name, result in results.items():
            self._log_side(name.replace(", ", "_").replace(" ", "_"), result, full)
        if moment.recorded is not None:
            self._log_action("recorded", moment.recorded.action)

    def _log_side(self, name: str, result: StepResult, full: Any) -> None:
        rerun, stream, trace = self._rerun, self._stream, result.trace
        action = result.chunk.actions[0]
        self._log_action(name, action)
        stream.log(f"{name}/layers/calls", rerun.Scalars(float(trace.layer_calls)))
        for block, (point, (first, end)) in enumerate(zip(trace.allow_points, self._blocks, strict=False)):
            stream.log(f"{name}/layers/block_{block}", rerun.Scalars(float(sum(trace.executed[first:end]))))
            stream.log(f"{name}/allow_point/block_{block}", rerun.Scalars(float(point)))
        stream.log(f"{name}/layers/executed", rerun.BarChart(np.array(trace.executed, np.uint8)))
        if np.isfinite(trace.continuity):
            stream.log(f"{name}/continuity", rerun.Scalars(trace.continuity))
        stream.log(f"{name}/milliseconds", rerun.Scalars(result.timings.total))
        if trace.verified:
            stream.log(f"{name}/verified", rerun.TextLog(trace.verify_reason))
        for measure in self._measures:
            stream.log(f"{name}/deviation/{measure.name}", rerun.Scalars(float(measure.apart(action, full))))

    def _log_action(self, name: str, action: Any) -> None:
        for axis, value in zip(self._names, action, strict=True):
            if np.isfinite(value):
                self._stream.log(f"{name}/action/{axis}", self._rerun.Scalars(float(value)))

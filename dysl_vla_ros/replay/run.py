"""Replays moments through several sides at once, each as if it were driving: the policy's own chunks, in bag time.

A replay depends on the recording alone (``recordings/playback.py``), not on this machine's speed: the same bag gives
the same numbers, bit for bit on one machine. Only milliseconds differ.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dysl_vla_ros.errors import NonFiniteActionError, ObservationError
from dysl_vla_ros.interfaces import ActionSpec, StepResult
from dysl_vla_ros.recordings.moments import Moment
from dysl_vla_ros.recordings.playback import Player, Steps
from dysl_vla_ros.records.deviation import Measure, measures, normalised_distance
from dysl_vla_ros.replay.pictures import Album
from dysl_vla_ros.replay.tracks import Columns, Track
from dysl_vla_ros.settings import RuntimeSettings

FULL, SKIPPING, OTHER_FULL, OTHER = "full depth", "skipping", "other, full depth", "other"
Watcher = Callable[[Moment, dict[str, StepResult]], None]


class Side(Player):
    """One way of running the policy, with what it gave."""

    def __init__(self, name: str, runtime: Steps, settings: RuntimeSettings) -> None:
        """Use ``runtime`` for this side alone; policies and modules may be shared with others."""
        super().__init__(runtime, settings)
        self.name = name
        self.track = Track(name, self.description)


@dataclass(frozen=True)
class Episode:
    """A stretch of the recording that guidance spans."""

    number: int
    instruction: str
    begins: str  # why


@dataclass
class Replay:
    """Everything that a replay gave, but the milliseconds' meaning and the files."""

    action: ActionSpec
    sides: dict[str, Side]
    moments: Columns
    episodes: list[Episode] = field(default_factory=list)
    album: Album = field(default_factory=Album)

    @property
    def measures(self) -> tuple[Measure, ...]:
        """How its actions lie apart; the first one leads."""
        return measures(self.action)

    def track(self, name: str) -> Track:
        """Return the results of one side."""
        return self.sides[name].track


def replay_moments(
    moments: Iterable[Moment],
    sides: Sequence[Side],
    refuse: Callable[[str], None],
    watch: Sequence[Watcher] = (),
) -> Replay:
    """Run every side on every moment.

    Args:
        moments: of the bag, in order.
        sides: the first is full depth, which the second and the pictures are judged by.
        refuse: told why a moment did not serve after all; the next one then begins an episode.
        watch: shown each moment with every side's result.
    """
    action = sides[0].description.action
    done = Replay(action, {side.name: side for side in sides}, Columns(_moment_type(action, sides)))
    begins = ""  # why an episode begins of which no inference has succeeded yet
    for moment in moments:
        if moment.begins:
            begins = begins or moment.begins
            for side in sides:
                side.begin(moment.clock)
        try:
            steps = {side.name: side.step(moment) for side in sides}
        except (NonFiniteActionError, ObservationError) as error:
            refuse(f"inference failed: {error}")
            continue
        if begins:
            done.episodes.append(Episode(len(done.episodes), moment.observation.instruction, begins))
            begins = ""
        for side in sides:
            side.track.append(*steps[side.name])
        results = {name: result for name, (result, _, _) in steps.items()}
        _keep(done, moment, results)
        for watcher in watch:
            watcher(moment, results)
    return done


def _moment_type(action: ActionSpec, sides: Sequence[Side]) -> list[Any]:
    return [
        ("time", np.float64),  # s of bag time since the first moment
        ("stamp", np.int64),  # ns
        ("episode", np.int32),
        ("recorded", np.float32, (action.dimensions,)),  # NaN: the bag has none
        ("recorded_full", np.float32, (action.dimensions,)),  # the full-depth action of the same place in the chunk
        ("recorded_skipping", np.float32, (action.dimensions,)),
        ("recorded_layers", np.int32),  # that ran on this frame when it was recorded; 0: the bag does not say
        ("same_layers", bool),  # and are those that skipping runs here
        ("chunk_apart", np.float64, (len(sides),)),  # mean over the chunk of the distance to the first side
    ]


def _keep(done: Replay, moment: Moment, results: dict[str, StepResult]) -> None:
    chunks = [result.chunk.actions for result in results.values()]
    values: dict[str, Any] = {"recorded": np.nan, "recorded_full": np.nan, "recorded_skipping": np.nan}
    if (recorded := moment.recorded) is not None and recorded.index < min(len(chunk) for chunk in chunks[:2]):
        values = {"recorded": recorded.action, "recorded_full": chunks[0][recorded.index]}
        values["recorded_skipping"] = chunks[1 if len(chunks) > 1 else 0][recorded.index]
    if moment.executed is not None:
        skipping = list(results.values())[1 if len(chunks) > 1 else 0].trace.executed
        values |= {"recorded_layers": sum(moment.executed), "same_layers": moment.executed == skipping}
    lead = done.measures[0]
    alike = [min(len(chunks[0]), len(chunk)) for chunk in chunks]
    done.moments.append(
        time=moment.time,
        stamp=moment.stamp,
        episode=len(done.episodes) - 1,
        chunk_apart=[lead.apart(chunk[:n], chunks[0][:n]).mean() for n, chunk in zip(alike, chunks, strict=True)],
        **values,
    )
    distance = normalised_distance(chunks[1 if len(chunks) > 1 else 0][0], chunks[0][0], done.action)
    done.album.watch(moment.observation, len(done.moments) - 1, len(done.episodes) - 1, float(distance))

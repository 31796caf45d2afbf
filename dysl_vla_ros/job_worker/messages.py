"""What a command and its worker say to each other, in the form of :mod:`dysl_vla_ros.worker.messages`.

Conversation, the command's side on the left; in place of any answer comes a Fault, and the worker lives on::

                         <- Hello
    Load                 ->
                         <- PolicyDescription
    ReadInstruction      ->                        may the policy read this instruction?
                         <- Readable
    FramesThere          ->                        how many lie in the shared file; no answer
    OpenDataset          ->                        a LeRobotDataset folder
                         <- DatasetPart ..., Done
    CopyFrames           ->                        write frames of it behind those of the shared file
                         <- Tell ..., Copied
    ChooseLayers, Distill ->
                         <- LogLine, Tell ...      what is logged, where it is
                         <- ChosenByWorker, TrainedByWorker
    KeepAndEnd           ->                        at any time: what is learned is kept, then comes the end
    Remember             ->                        take full-depth runs of the held-out frames
                         <- Chunks ..., Remembered
    ReplayRuns, AskFloor ->
                         <- Replayed or FloorPart ..., Done
    AskOutputs           ->
                         <- ValuesPart ..., Done
    SaveThresholds       ->
                         <- Done
    OpenSide             ->                        the policy with a DySL folder and an episode of its own
                         <- PolicyDescription
    StepSide             ->                        one inference on the one frame that the shared file holds
                         <- Answer

Long answers come in pieces, none larger than a message may be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dysl_vla_ros.distillation.beside.plan import DistillationPlan
from dysl_vla_ros.distillation.settings import DistillationSettings
from dysl_vla_ros.interfaces import FloatArray, PolicyDescription
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.worker.messages import Answer, Fault, Hello, Kinds, Load

PIECE = 128  # steps in a piece of a long answer


@dataclass(frozen=True)
class ReadInstruction:
    """An instruction that may or may not be one for the policy."""

    text: str


@dataclass(frozen=True)
class Readable:
    """Why it is none; "": it is one."""

    fault: str


@dataclass(frozen=True)
class FramesThere:
    """The shared file holds ``learned`` frames to learn from, then ``held_out`` to judge by, then those of runs."""

    learned: int
    held_out: int


@dataclass(frozen=True)
class OpenDataset:
    """Open a LeRobotDataset folder under a number, in place of the one that had it."""

    number: int
    folder: str
    remapped: Mapping[str, str]  # camera -> the folder's name of it, where they differ


@dataclass(frozen=True)
class DatasetPart:
    """Some episodes of a folder, or parts of one instruction."""

    instructions: tuple[str, ...]
    starts: tuple[int, ...]  # row of the first frame of each
    ends: tuple[int, ...]  # one past the last


@dataclass(frozen=True)
class CopyFrames:
    """Write frames of an open folder behind those of the shared file."""

    number: int  # of the folder
    rows: tuple[int, ...]


@dataclass(frozen=True)
class Copied:
    """How many were written, and the SHA-256 of their bytes."""

    count: int
    digest: str


@dataclass(frozen=True)
class ChooseLayers:
    """Choose static layers."""

    count: int
    wanted: str  # "spread", "informative", "auto"
    trial: DistillationSettings
    together: int


@dataclass(frozen=True)
class ChosenByWorker:
    """The choice and what it was made by."""

    choice: str
    static: tuple[int, ...]
    similarity: tuple[float, ...]
    floor_errors: Mapping[str, float]


@dataclass(frozen=True)
class Distill:
    """Train, and write the DySL folder."""

    plan: DistillationPlan


@dataclass(frozen=True)
class TrainedByWorker:
    """What ``distillation.json`` holds, and what is wrong with the result."""

    report: Mapping[str, Any]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Remember:
    """Run every layer on the frames of runs, with the adapters of a DySL folder at hand."""

    folder: str
    m: int  # actions played of each chunk
    runs: tuple[int, ...]  # frames of each run, behind those that are learned from and judged by


@dataclass(frozen=True)
class Chunks:
    """Some chunks of a run at full depth, in their order."""

    run: int
    actions: FloatArray  # (n, H, A) physical units


@dataclass(frozen=True)
class Remembered:
    """Which layers may be skipped, and how the static ones were chosen."""

    static: tuple[int, ...]
    per_block: str
    choice: str


@dataclass(frozen=True)
class ReplayRuns:
    """What would settings have done on some runs?"""

    settings: RuntimeSettings
    runs: tuple[int, ...]


@dataclass(frozen=True)
class Replayed:
    """Some steps of a replay, n of them."""

    actions: FloatArray  # (n, m, A) physical units, those that are played
    layer_calls: tuple[int, ...]
    verified: tuple[bool, ...]
    allow_points: tuple[tuple[int, ...], ...]
    warming_up: tuple[bool, ...]


@dataclass(frozen=True)
class AskFloor:
    """What do the floor and its controllers say on each run?"""

    m: int


@dataclass(frozen=True)
class FloorPart:
    """Some steps of a run at the floor."""

    run: int
    actions: FloatArray  # (n, m, A)
    probabilities: FloatArray  # (n, blocks)


@dataclass(frozen=True)
class AskOutputs:
    """What do controllers say, deepest and shallowest way?"""


@dataclass(frozen=True)
class ValuesPart:
    """Some of many values."""

    values: FloatArray  # (n,)


@dataclass(frozen=True)
class SaveThresholds:
    """Set controllers to tolerate an error, and write folder and ``calibration.json``."""

    tolerated_error: float
    calibration: Mapping[str, Any]


@dataclass(frozen=True)
class OpenSide:
    """Have the policy ready with the adapters of a DySL folder; sides are numbered as they are opened."""

    adapters: str  # "": the checkpoint's own, full depth where it has none


@dataclass(frozen=True)
class StepSide:
    """Compute one step of a side."""

    side: int
    begins: bool  # an episode
    played: FloatArray  # (n, A) physical units
    gaps: tuple[int, ...]
    settings: RuntimeSettings


@dataclass(frozen=True)
class Done:
    """A long answer has ended, or something was done."""


@dataclass(frozen=True)
class KeepAndEnd:
    """Keep what is learned, and end."""


@dataclass(frozen=True)
class Tell:
    """Where long work is."""

    label: str
    done: int
    total: int
    said: str


@dataclass(frozen=True)
class LogLine:
    """A line for the log."""

    level: int  # of the logging module
    text: str


KINDS: Kinds = {
    "hello": Hello, "load": Load, "description": PolicyDescription, "fault": Fault, "read": ReadInstruction,
    "readable": Readable, "frames": FramesThere, "choose": ChooseLayers, "chosen": ChosenByWorker, "distill": Distill,
    "trained": TrainedByWorker, "remember": Remember, "chunks": Chunks, "remembered": Remembered, "replay": ReplayRuns,
    "replayed": Replayed, "at_floor": AskFloor, "at_floor_part": FloorPart, "outputs": AskOutputs,
    "values": ValuesPart, "save_thresholds": SaveThresholds, "open_side": OpenSide, "step_side": StepSide,
    "open_dataset": OpenDataset, "dataset_part": DatasetPart, "copy_frames": CopyFrames, "copied": Copied,
    "answer": Answer, "done": Done, "stop": KeepAndEnd, "tell": Tell, "log": LogLine,
}  # fmt: skip

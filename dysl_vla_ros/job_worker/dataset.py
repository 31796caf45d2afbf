"""LeRobotDataset folders to learn from: the worker, whose Python has LeRobot, reads them into the shared file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.messages import Copied, CopyFrames, DatasetPart, OpenDataset
from dysl_vla_ros.runs.full_depth import split_episodes
from dysl_vla_ros.runs.training_data import HELD_OUT_SHARE, TrainingData, draw_evenly

LOG = logging.getLogger(__name__)
TOGETHER = 4096  # rows that one order names

Frames = tuple[int, int, int]  # folder, row of the first frame, one past the last


class WorkerDatasets:
    """Folders that a worker has open, split into episodes to learn from and episodes held out."""

    def __init__(self, worker: JobWorker, folders: Sequence[Path], remapped: Mapping[str, str]) -> None:
        """Have the folders opened; ``remapped``: camera -> a folder's name of it, where they differ.

        Raises:
            WorkerError: one cannot be read there, or cannot serve the policy; says why.
            DataError: there is too little to hold anything out.
        """
        self._worker, self._folders, self._remapped = worker, tuple(folders), dict(remapped)
        texts: list[str] = []
        found: list[Frames] = []
        for number, folder in enumerate(folders):
            for part in worker.parts(OpenDataset(number, str(folder.absolute()), self._remapped)):
                assert isinstance(part, DatasetPart)
                texts += part.instructions
                found += [(number, start, end) for start, end in zip(part.starts, part.ends, strict=True)]
        judged = {text: worker.reads(text) for text in dict.fromkeys(texts)}
        for text, fault in judged.items():
            if fault:
                LOG.warning("%r is left out: %s", text[:80], fault)
        kept = [place for place, text in enumerate(texts) if not judged[text]]
        self._texts, self._stretches = [texts[place] for place in kept], [found[place] for place in kept]
        lengths = [(text, end - start) for text, (_, start, end) in zip(self._texts, self._stretches, strict=True)]
        learned, held_out = split_episodes(lengths, HELD_OUT_SHARE)
        self.learned, self.held_out = ([self._part(*part) for part in side] for side in (learned, held_out))
        LOG.info(
            "%d episodes of %d instructions, %d frames; held out: %d episodes or parts",
            len(lengths), len(set(self._texts)), sum(length for _, length in lengths), len(self.held_out),
        )  # fmt: skip

    def write_learned(self, count: int) -> int:
        """Have up to ``count`` frames to learn from written, as many of each instruction; return how many."""
        return self._write_drawn(self.learned, count)

    def write_held_out(self, count: int) -> int:
        """Have up to ``count`` held-out frames written, as many of each instruction; return how many."""
        return self._write_drawn(self.held_out, count)

    def write_episodes(self, m: int, limit: int, shortest: int) -> list[int]:
        """Have held-out episodes written, ``m`` frames apart, about ``limit`` frames; return how long each is."""
        rows = [(number, range(start, end, m)) for _, (number, start, end) in self.held_out]
        long = [own for own in rows if len(own[1]) >= shortest]
        total = sum(len(own) for _, own in long)
        wanted = len(long) if total <= limit else max(1, round(len(long) * limit / total))
        chosen = [long[place * len(long) // wanted] for place in range(wanted)] if long else []
        for number, own in chosen:
            self._copy(number, list(own))
        return [len(own) for _, own in chosen]

    def told(self) -> dict[str, Any]:
        """Return the folders and what the user said of them, as plain values for result files."""
        said = {"topics": self._remapped} if self._remapped else {}
        return {"datasets": [str(folder) for folder in self._folders], **said}

    def _part(self, place: int, start: int, end: int) -> tuple[str, Frames]:
        number, first, _ = self._stretches[place]
        return self._texts[place], (number, first + start, first + end)

    def _write_drawn(self, side: Sequence[tuple[str, Frames]], count: int) -> int:
        places = [(number, row) for _, (number, start, end) in side for row in range(start, end)]
        said = np.array([text for text, (_, start, end) in side for _ in range(start, end)])
        drawn = sorted(places[int(place)] for place in draw_evenly(said, count))  # videos are read forwards
        for number in range(len(self._folders)):
            self._copy(number, [row for own, row in drawn if own == number])
        return len(drawn)

    def _copy(self, number: int, rows: Sequence[int]) -> None:
        for first in range(0, len(rows), TOGETHER):
            copied = self._worker.ask(CopyFrames(number, tuple(rows[first : first + TOGETHER])), Copied)
            self._worker.frames.take_over(copied.count, copied.digest)


Recordings: TypeAlias = TrainingData | WorkerDatasets
"""What is learned from: read by the command, or by its worker."""

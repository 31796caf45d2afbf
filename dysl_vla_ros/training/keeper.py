"""What the first process of a training run keeps on the disk: the state, often; the checkpoint folder, validated."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.policies.checkpoint import read_config, total_training
from dysl_vla_ros.policies.reference import save_reference
from dysl_vla_ros.training.batches import Autocast, Batches
from dysl_vla_ros.training.board_lessons import BoardBatches, right_discs
from dysl_vla_ros.training.options import TrainingSettings
from dysl_vla_ros.training.state import TrainingState

STATE = "training-state.safetensors"
VALIDATION_FRAMES, PARTS = 512, 8
BOARD_IMAGES = 48  # of validation, each asked for 8 chains


@contextmanager
def claim(output: Path) -> Iterator[None]:
    """Hold the output folder for this run; the kernel lets go of it when the process ends, however it ends.

    Raises:
        DataError: another run holds it.
    """
    with (output / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(f"another run is training into {output}; end it, or name another folder") from error
        yield


def earlier_training(base: Path) -> dict[str, int]:
    """Return what a base took, its own bases included, as ``base_steps`` and ``base_seconds``; {}: it does not tell."""
    steps, seconds = total_training(read_config(base).get("training"))
    return {} if steps is None or seconds is None else {"base_steps": steps, "base_seconds": round(seconds)}


class Keeper:
    """Called after each step of the first process; the others meanwhile wait for its gradients."""

    def __init__(
        self,
        state: TrainingState,
        output: Path,
        settings: TrainingSettings,
        validation: Batches,
        frames: int,
        identity: dict[str, Any],
        board: BoardBatches | None = None,
    ) -> None:
        """Keep ``state`` in ``output``.

        Args:
            state: of the run.
            output: checkpoint folder.
            settings: of the run.
            validation: frames that nothing is learned from.
            frames: how many are learned from.
            identity: what the state belongs to, with a teacher's or base's hash if any.
            board: as ``validation``, where the board is learned.
        """
        self._state, self._output, self._settings, self._validation = state, output, settings, validation
        self._frames, self._board = frames, board
        self._earlier = earlier_training(Path(settings.base)) if settings.base else {}
        self._identity, self._seconds_before = identity, state.seconds
        self._started = self._saved = time.monotonic()
        self._running = 0.0

    def after_step(self, error: float, autocast: Autocast) -> float:
        """Save and validate when it is time to; return the running mean of the training error."""
        step, last = self._state.step, self._state.step >= self._settings.steps
        self._state.seconds = self._seconds_before + time.monotonic() - self._started
        self._running = 0.95 * self._running + 0.05 * error if self._running else error
        if last or step % self._settings.checkpoint_steps == 0:
            self._write_checkpoint(autocast)
        if last or time.monotonic() - self._saved >= self._settings.save_seconds:
            self._state.save(self._output / STATE, self._identity)
            self._saved = time.monotonic()
        return self._running

    def _write_checkpoint(self, autocast: Autocast) -> None:
        state, settings = self._state, self._settings
        student = state.averaged()
        chosen = np.linspace(0, len(self._validation) - 1, VALIDATION_FRAMES).astype(np.int64)
        with torch.no_grad():
            parts = (self._validation.plain(part) for part in np.array_split(chosen, PARTS))
            errors = [float(student.loss(part, autocast)[1]) for part in parts]
        record: dict[str, Any] = {
            "steps": state.step,
            "batch_size": settings.batch_size,
            "frames": self._frames,
            "seed": settings.seed,
            "validation_l1": round(float(np.mean(errors)), 5),
            "parameters": sum(parameter.numel() for parameter in student.network.parameters()),
            "seconds": round(state.seconds),
        }
        if self._board and student.board:
            counts = right_discs(student.network, student.board, self._board.drawn(BOARD_IMAGES, (0,), plain=True))
            shares = {str(hops): round(right / max(1, of), 4) for hops, (right, of) in counts.items()}
            tqdm.write(f"step {state.step}: right disc by hops {shares}")
            record["right_discs"] = shares
        record |= {role: self._identity[role] for role in ("teacher", "base") if role in self._identity}
        record |= self._earlier
        minutes = (time.monotonic() - self._started) / 60
        tqdm.write(f"step {state.step}: validation L1 {record['validation_l1']:.4f}, {minutes:.1f} min")
        save_reference(student.network, self._output, record)

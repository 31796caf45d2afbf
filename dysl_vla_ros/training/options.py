"""What a training run may change, as a dataclass and as the arguments of a command line. Imports no torch."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.simulation.tasks import TASK_CHOICES, Task


def _option(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainingSettings:
    """What a run may change; what made the shipped weights stands in their model card."""

    steps: int = _option(6000, "optimiser steps; about an hour and a half on two cores")
    batch_size: int = _option(96, "frames a step, over all processes")
    learning_rate: float = _option(8e-4, "of AdamW, after the warm-up")
    weight_decay: float = _option(0.05, "of matrices")
    warm_up: float = _option(0.03, "share of the steps")
    final_rate: float = _option(0.08, "of the learning rate, at the end of the cosine")
    averaging: float = _option(0.998, "decay of the running average of the weights, which is what is written")
    horizon: int = _option(8, "actions of a chunk")
    layers: int = _option(24, "of the stack")
    width: int = _option(160, "of the hidden state")
    heads: int = _option(5, "of attention")
    feed_forward: int = _option(384, "width inside a layer")
    board_images: int = _option(24, "images of the board a step, over all processes; each is asked for 8 chains")
    board_lessons: int = _option(
        0, "of the steps, the first ones: of the board alone, hop after hop, through as many layers as that takes"
    )
    layout: str = _option("", "open or causal: what patches attend to (default: the base's, without one open)")
    wrist_pixels: int = _option(72, "edge of the wrist camera's picture as the policy takes it; a multiple of 24")
    teacher: str = _option(
        "", "checkpoint to learn from in place of the experts; sizes and first weights are its, but for --layers"
    )
    base: str = _option(
        "", "checkpoint whose weights are gone on from; sizes and statistics are its; words new to it are added"
    )
    seed: int = _option(0, "of weights and batches")
    save_seconds: float = _option(45.0, "between two saves of the whole state, which a killed run goes on from")
    checkpoint_steps: int = _option(500, "between two validations, each of which writes the checkpoint folder")
    compile: bool = _option(True, "torch.compile: three times as fast, after a minute; needs a C++ compiler")

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises:
            DataError: all faults.
        """
        least = {
            "steps": 1, "batch_size": 1, "horizon": 1, "layers": 2, "heads": 1, "width": 1, "wrist_pixels": 24,
            "board_images": 1, "board_lessons": 0, "save_seconds": 0, "checkpoint_steps": 1,
        }  # fmt: skip
        faults = [
            f"--{name.replace('_', '-')} must be at least {low}, not {getattr(self, name)}"
            for name, low in least.items()
            if getattr(self, name) < low
        ]
        if self.heads >= 1 and self.width % (2 * self.heads):
            faults.append(f"--width {self.width} must be a multiple of twice --heads {self.heads}")
        if self.wrist_pixels % 24:
            faults.append(f"--wrist-pixels must be a multiple of 24, not {self.wrist_pixels}")
        if self.layout not in ("", "open", "causal"):
            faults.append(f"--layout must be open or causal, not {self.layout}")
        if self.board_lessons > self.steps:
            faults.append(f"--board-lessons {self.board_lessons} is more than --steps {self.steps}")
        if self.base and self.teacher:
            faults.append("--base and --teacher go apart: a student begins with its teacher's weights")
        if faults:
            raise DataError("; ".join(faults))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of a training run."""
    parser.add_argument("data", type=Path, help="folder that `dysl_vla demonstrations` wrote")
    parser.add_argument("output", type=Path, help="checkpoint folder; an unfinished one is trained on")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help=f"of {TASK_CHOICES} (default: easy, hard)")
    for own in fields(TrainingSettings):
        flag, text = own.name.replace("_", "-"), own.metadata["help"]
        if own.type is bool:
            parser.add_argument(f"--no-{flag}", dest=own.name, action="store_false", help=f"do without {text}")
        else:
            parser.add_argument(f"--{flag}", type=own.type, default=own.default, help=text)


def settings_from(values: Mapping[str, Any]) -> TrainingSettings:
    """Return the settings among the values that :func:`add_arguments` declares, by their names.

    Raises:
        DataError: they cannot be trained with.
    """
    return TrainingSettings(**{own.name: values[own.name] for own in fields(TrainingSettings)})


def as_arguments(data: Path, output: Path, tasks: Sequence[Task], settings: TrainingSettings) -> list[str]:
    """Return the command line that :func:`add_arguments` reads as this."""
    line = [str(data), str(output), "--tasks", *(task.name for task in tasks)]
    for own in fields(TrainingSettings):
        flag, value = own.name.replace("_", "-"), getattr(settings, own.name)
        if own.type is bool:
            line += [] if value else [f"--no-{flag}"]
        else:
            line += [f"--{flag}={value}"]
    return line

"""How a long run tells where it is, is asked to end, and what it leaves so that another goes on with the same bits."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dysl_vla_ros.distillation.descent import Descent
from dysl_vla_ros.distillation.judging import Judgement
from dysl_vla_ros.distillation.resume import Resume
from dysl_vla_ros.skipping.modules import DyslModules

KEPT_EVERY = 120.0  # s between two states on disk
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # that AdamW keeps for a parameter
OPTIMISER = "optimiser/"  # before the names of its tensors in the file


class Interrupted(Exception):  # noqa: N818  # as KeyboardInterrupt: no error
    """The run was asked to end and has kept what it learned."""


@dataclass(frozen=True)
class RunProgress:
    """Who hears of a run, and may end it."""

    tell: Callable[[str, int, int, str], None] = lambda label, done, total, said: None
    interrupted: Callable[[], bool] = lambda: False


class ResumeWithin(Resume):
    """A :class:`~dysl_vla_ros.distillation.resume.Resume` that also goes on within a stage."""

    def __init__(self, folder: Path, settings: Any, digest: str) -> None:
        """Look for the state that belongs to these settings (plain values) and to frames of this ``digest``."""
        super().__init__(folder, settings, torch.frombuffer(bytearray(digest.encode()), dtype=torch.uint8))
        self._within: dict[str, Any] = self.state.get("within") or {}
        self._moments: dict[str, Tensor] = {}
        self._kept = time.monotonic()

    def restored(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Keep the optimiser's tensors for :meth:`go_on`; return the modules'."""
        self._moments = {name: value for name, value in tensors.items() if name.startswith(OPTIMISER)}
        return super().restored({name: value for name, value in tensors.items() if name not in self._moments})

    def go_on(self, label: str, modules: DyslModules, descent: Descent) -> tuple[int, list[Judgement]]:
        """Return the step that a stage begins with, and what was judged before; the optimiser is as it was there."""
        within, self._within = self._within, {}
        if within.get("stage") != label:
            return 0, []
        descent.running = float(within["running"])
        for place, parameter in enumerate(descent.parameters):
            names = {name: f"{OPTIMISER}{place}/{name}" for name in MOMENTS}
            if all(name in self._moments for name in names.values()):
                descent.optimiser.state[parameter] = {name: self._moments[own].clone() for name, own in names.items()}
        return int(within["step"]), [Judgement(**own) for own in within["judgements"]]

    def due(self) -> bool:
        """Tell whether the last state on disk is old."""
        return time.monotonic() - self._kept > KEPT_EVERY

    def keep(self, label: str, step: int, modules: DyslModules, descent: Descent, judgements: list[Judgement]) -> None:
        """Keep what a stage has learned before ``step``."""
        tensors = {
            f"{OPTIMISER}{place}/{name}": torch.as_tensor(own[name]).detach().cpu().contiguous()
            for place, parameter in enumerate(descent.parameters)
            if (own := descent.optimiser.state.get(parameter))
            for name in MOMENTS
        }
        within = {
            "stage": label, "step": step, "running": descent.running, "judgements": [asdict(own) for own in judgements],
        }  # fmt: skip
        self.write(modules, within, tensors)
        self._kept = time.monotonic()

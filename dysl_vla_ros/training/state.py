"""The whole state of a training run: weights, their running average, the optimiser's moments, the step."""

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.policies.checkpoint import fill_tensors
from dysl_vla_ros.training.options import TrainingSettings
from dysl_vla_ros.training.student import Student

MOMENTS = ("exp_avg", "exp_avg_sq")


class TrainingState:
    """Batches and noise are drawn from seed and step, so that nothing else is needed to go on bit by bit."""

    def __init__(self, student: Student, settings: TrainingSettings) -> None:
        self.student = student
        self.names = [name for name, _ in student.named_parameters()]
        self.parameters: list[Tensor] = list(student.parameters())
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        decayed = [p for p in self.parameters if p.ndim > 1]
        plain = [p for p in self.parameters if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
        self.averaging = settings.averaging
        self.step = 0
        self.seconds = 0.0  # that training took so far, interruptions left out

    def update(self, rate: float) -> None:
        """Take one step with the gradients at hand, and average the weights."""
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.step += 1
        keep = min(self.averaging, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - keep)

    def save(self, path: Path, model: dict[str, object]) -> None:
        """Write everything that a resumed run needs, whole or not at all; ``model`` says what it belongs to."""
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter, average in zip(self.names, self.parameters, self.average, strict=True):
            moments = self.optimiser.state[parameter]
            tensors |= {f"weight.{name}": parameter.detach(), f"average.{name}": average}
            tensors |= {f"{kind}.{name}": moments[kind] for kind in MOMENTS}
        metadata = {"model": json.dumps(model, sort_keys=True), "seconds": f"{self.seconds:.1f}"}
        write_atomically(path, fill_tensors(tensors, metadata))

    def load(self, path: Path, model: dict[str, object]) -> None:
        """Read what :meth:`save` wrote.

        Raises:
            DataError: it is damaged, or of another model.
        """
        mend = "name another output folder, or delete that file to begin anew"
        try:
            with safe_open(path, "pt", device=str(self.parameters[0].device)) as source:
                metadata = source.metadata() or {}
                if metadata.get("model") != json.dumps(model, sort_keys=True):
                    raise DataError(f"{path} is of a run with other tasks, data or model sizes, or a teacher; {mend}")
                self.seconds = float(metadata.get("seconds", 0.0))
                tensors = {name: source.get_tensor(name) for name in source.keys()}  # noqa: SIM118  (it cannot be iterated over)
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} cannot be read: {error}; {mend}") from error
        self.step = int(tensors["step"])
        with torch.no_grad():
            for name, parameter, average in zip(self.names, self.parameters, self.average, strict=True):
                parameter.copy_(tensors[f"weight.{name}"])
                average.copy_(tensors[f"average.{name}"])
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=parameter.device),
                    **{kind: tensors[f"{kind}.{name}"].clone() for kind in MOMENTS},
                }

    def averaged(self) -> Student:
        """Return a copy of the student with the averaged weights."""
        board = self.student.board is not None
        student = Student(self.student.network.config, board=board).to(self.parameters[0].device)
        student.load_state_dict(self.student.state_dict() | dict(zip(self.names, self.average, strict=True)))
        return student.eval()

"""Behaviour cloning of the reference policy; reads in the order of execution.

Loss: masked L1 on the normalised chunk, and 0.3 times the L1 of object and goal position read off the proprioception
token, which only the simulator can label and only training uses. Two processes of one thread each average their
gradients: torch with two threads collapses as soon as anything else runs.
"""

import os
import time
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch import distributed as gradients
from tqdm import tqdm

from dysl_vla_ros.errors import WorkerError
from dysl_vla_ros.files import require_writable, write_atomically
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.policies.reference import ReferenceConfig, ReferenceNetwork, save_reference
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, Task
from dysl_vla_ros.training.dataset import Episodes, batch, load_episodes

SCENE_WEIGHT, SCENE_SCALE = 0.3, 0.1  # weight of the auxiliary loss; m
STATE_EVERY = 100  # steps between two saves of the whole state


@dataclass(frozen=True)
class TrainingSettings:
    """What a run may change; the defaults made the shipped weights."""

    steps: int = 2400
    batch_size: int = 96
    processes: int = 2
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: float = 0.03  # share of the steps
    final_rate: float = 0.08  # of the learning rate, at the end of the cosine
    averaging: float = 0.998  # of the weights that are shipped
    compile: bool = True  # three times as fast, after a minute; needs a C++ compiler
    seed: int = 0
    horizon: int = 8


def configure_model(episodes: Episodes, settings: TrainingSettings, layers: int = 24) -> ReferenceConfig:
    """Take vocabulary and statistics from the data."""
    low, high = episodes.action.min(0), episodes.action.max(0)
    reach = np.maximum(high[:3], -low[:3])
    center = (0.0, 0.0, 0.0, float(low[3] + high[3]) / 2)
    spread = float(high[3] - low[3]) / 2
    scale = (*(float(value) for value in reach), spread if spread > 0 else 0.5)  # one task may never move the gripper
    texts = [text for task in episodes.tasks for text in task.instructions]
    return ReferenceConfig(
        vocabulary=tuple(sorted({word for text in texts for word in text.split()})),
        action=ActionSpec(settings.horizon, CONTROL_PERIOD, False, center, scale),
        proprioception_mean=tuple(float(value) for value in episodes.proprioception.mean(0)),
        proprioception_std=tuple(max(float(value), 0.01) for value in episodes.proprioception.std(0)),
        instructions=tuple(task.instruction for task in episodes.tasks),
        layers=layers,
    )


class Student(nn.Module):
    """The network with its auxiliary head, which is not shipped."""

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.network = ReferenceNetwork(config)
        self.scene = nn.Linear(config.width, 6)

    def loss(self, episodes: Episodes, frames: np.ndarray, random: np.random.Generator | None) -> tuple[Tensor, Tensor]:
        """Return the training loss and the masked L1 of the actions on some frames."""
        config = self.network.config
        pictures, words, proprioception = batch(episodes, frames, config, random)
        actions, mask = episodes.chunks(frames, config.action.horizon)
        with torch.autocast("cpu", torch.bfloat16):
            predicted, hidden = self.network(pictures, words, proprioception)
            scene = self.scene(self.network.norm(hidden[:, self.network.proprioception_at]))
        target = torch.from_numpy(config.action.normalise(actions))
        weight = torch.from_numpy(mask)[..., None]
        error = ((predicted.float() - target).abs() * weight).sum() / (weight.sum() * target.shape[-1])
        centre = torch.tensor([0.0, 0.7, 0.1] * 2)
        position = (torch.from_numpy(episodes.scene[frames]) - centre) / SCENE_SCALE
        return error + SCENE_WEIGHT * (scene.float() - position).abs().mean(), error.detach()


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then a cosine down to ``final_rate``."""
    warm = max(1, round(settings.warm_up * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    along = (step - warm) / max(1, settings.steps - warm)
    low = settings.final_rate
    return settings.learning_rate * (low + (1 - low) * 0.5 * (1 + np.cos(np.pi * along)))


class TrainingState:
    """Weights, their running average and the optimiser's moments; saved whole as safetensors."""

    def __init__(self, student: Student, settings: TrainingSettings) -> None:
        self.student = student
        self.average = {name: value.detach().clone() for name, value in student.named_parameters()}
        decayed = [p for p in student.parameters() if p.ndim > 1]
        plain = [p for p in student.parameters() if p.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, 0.98), fused=True)
        self.step = 0

    def save(self, path: Path) -> None:
        """Write everything that a resumed run needs."""
        tensors = {"step": torch.tensor(self.step)}
        for name, parameter in self.student.named_parameters():
            moments = self.optimiser.state[parameter]
            tensors |= {f"weight.{name}": parameter.detach(), f"average.{name}": self.average[name]}
            tensors |= {f"{kind}.{name}": moments[kind] for kind in ("exp_avg", "exp_avg_sq")}
        write_atomically(path, lambda temporary: save_file(tensors, temporary))

    def load(self, path: Path) -> None:
        """Read what :meth:`save` wrote."""
        tensors = load_file(path)
        self.step = int(tensors["step"])
        with torch.no_grad():
            for name, parameter in self.student.named_parameters():
                parameter.copy_(tensors[f"weight.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": tensors[f"exp_avg.{name}"].clone(),
                    "exp_avg_sq": tensors[f"exp_avg_sq.{name}"].clone(),
                }

    def averaged(self) -> Student:
        """Return a copy of the student with the averaged weights."""
        copy = Student(self.student.network.config)
        copy.load_state_dict({**self.student.state_dict(), **self.average})
        return copy.eval()


def train(data: Path, output: Path, tasks: list[Task], settings: TrainingSettings) -> None:
    """Train at full depth and write a checkpoint folder; an interrupted run goes on at its last saved step.

    Raises:
        DataError: no episodes, or the output folder cannot be written to.
        WorkerError: one of the processes ended early.
    """
    require_writable(output)
    episodes = load_episodes(data, tasks)
    validation = load_episodes(data, tasks, validation=True)
    context = get_context("fork")  # the pictures are shared, not copied
    rendezvous = output / f".rendezvous-{os.getpid()}"
    workers = [
        context.Process(target=_run, args=(rank, rendezvous, episodes, validation, output, settings))
        for rank in range(settings.processes)
    ]
    for worker in workers:
        worker.start()
    try:
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
        rendezvous.unlink(missing_ok=True)
    if any(worker.exitcode for worker in workers):
        raise WorkerError("a training process ended early; its own message stands above. Run again to go on")


def _run(
    rank: int, rendezvous: Path, episodes: Episodes, validation: Episodes, output: Path, settings: TrainingSettings
) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    gradients.init_process_group(
        "gloo", init_method=f"file://{rendezvous.absolute()}", rank=rank, world_size=settings.processes
    )
    torch.manual_seed(settings.seed)
    state = TrainingState(Student(configure_model(episodes, settings)), settings)
    saved = output / "training-state.safetensors"
    if saved.exists():
        state.load(saved)
    network = state.student.network
    if settings.compile:
        # the same arithmetic; eager attention is the one that the compiler fuses at this number of tokens
        network.llama._attn_implementation = "eager"
        for layer in network.layers:
            layer.compile(dynamic=False)
    parameters = list(state.student.parameters())
    weights = np.array([task.sampling_weight for task in episodes.tasks])[episodes.task]
    weights = weights / weights.sum()
    share = settings.batch_size // settings.processes
    progress = tqdm(total=settings.steps, initial=state.step, unit="step", disable=rank != 0, mininterval=5.0)
    running, started = 0.0, time.monotonic()
    while state.step < settings.steps:
        random = np.random.default_rng((settings.seed, state.step, rank))
        loss, error = state.student.loss(episodes, random.choice(len(episodes), share, p=weights), random)
        loss.backward()
        flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]  # every one has a gradient
        gradients.all_reduce(flat)
        flat /= settings.processes
        flat *= min(1.0, 1.0 / (float(flat.norm()) + 1e-6))  # clip to norm 1
        for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = part.view_as(parameter)
        for group in state.optimiser.param_groups:
            group["lr"] = learning_rate(state.step, settings)
        state.optimiser.step()
        state.optimiser.zero_grad()
        state.step += 1
        with torch.no_grad():
            keep = min(settings.averaging, (1 + state.step) / (10 + state.step))
            for name, parameter in state.student.named_parameters():
                state.average[name].lerp_(parameter, 1 - keep)
        running = 0.95 * running + 0.05 * float(error) if running else float(error)
        progress.update()
        if rank == 0:
            progress.set_postfix(l1=f"{running:.4f}", refresh=False)
            if state.step % STATE_EVERY == 0 or state.step == settings.steps:
                state.save(saved)
                _write(state, validation, output, settings, len(episodes), time.monotonic() - started)
    progress.close()
    gradients.destroy_process_group()


def _write(
    state: TrainingState, validation: Episodes, output: Path, settings: TrainingSettings, frames: int, seconds: float
) -> None:
    student = state.averaged()
    with torch.no_grad():
        chosen = np.linspace(0, len(validation) - 1, 512).astype(np.int64)
        errors = [float(student.loss(validation, part, None)[1]) for part in np.array_split(chosen, 8)]
    record = {
        "steps": state.step,
        "batch_size": settings.batch_size,
        "frames": frames,
        "seed": settings.seed,
        "validation_l1": round(float(np.mean(errors)), 5),
        "seconds": round(seconds),
    }
    tqdm.write(f"step {state.step}: validation L1 {record['validation_l1']:.4f}, {seconds / 60:.1f} min")
    save_reference(student.network, output, record)

"""Behaviour cloning of the reference policy, from the experts or from a teacher; reads in the order of execution.

Where it runs is the launcher's business: one process or many, on CPUs or GPUs, through Hugging Face Accelerate. On CPUs
each process has one thread: torch with two threads collapses as soon as anything else runs.
"""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from dysl_vla_ros.engines.torch.devices import cpu_has_bfloat16
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.interfaces import ActionSpec
from dysl_vla_ros.policies.action_statistics import action_faults
from dysl_vla_ros.policies.reference_config import LAYOUTS, ReferenceConfig
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD, Task
from dysl_vla_ros.training.batches import Batches, BatchesAhead
from dysl_vla_ros.training.board_lessons import BoardBatches, lesson_at, soft_start
from dysl_vla_ros.training.dataset import Episodes, load_episodes
from dysl_vla_ros.training.keeper import STATE, Keeper, claim
from dysl_vla_ros.training.options import TrainingSettings
from dysl_vla_ros.training.state import TrainingState
from dysl_vla_ros.training.student import Student
from dysl_vla_ros.training.teacher import CHUNKS, load_origin, teacher_chunks, with_tasks


def configure_model(episodes: Episodes, settings: TrainingSettings) -> ReferenceConfig:
    """Take vocabulary and statistics from the data, sizes from the settings.

    Raises:
        DataError: the actions are such that no checkpoint with their statistics would be loaded.
    """
    low, high = episodes.action.min(0), episodes.action.max(0)
    reach = np.maximum(high[:3], -low[:3])
    center = (0.0, 0.0, 0.0, float(low[3] + high[3]) / 2)
    spread = float(high[3] - low[3]) / 2
    scale = (*(float(value) for value in reach), spread if spread > 0 else 0.5)  # one task may never move the gripper
    texts = [text for task in episodes.tasks for text in task.instructions]
    action = ActionSpec(settings.horizon, CONTROL_PERIOD, False, center, scale)
    if faults := action_faults(action):
        raise DataError(f"nothing can be learned from these demonstrations' actions: {'; '.join(faults)}")
    return ReferenceConfig(
        vocabulary=tuple(sorted({word for text in texts for word in text.split()})),
        action=action,
        proprioception_mean=tuple(float(value) for value in episodes.proprioception.mean(0)),
        proprioception_std=tuple(max(float(value), 0.01) for value in episodes.proprioception.std(0)),
        instructions=tuple(task.instruction for task in episodes.tasks),
        layers=settings.layers,
        width=settings.width,
        heads=settings.heads,
        feed_forward=settings.feed_forward,
        layout=settings.layout or LAYOUTS[0],
        cameras={"image": 96, "wrist_image": settings.wrist_pixels},
    )


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up, then a cosine down to ``final_rate``."""
    warm = max(1, round(settings.warm_up * settings.steps))
    if step < warm:
        return settings.learning_rate * (step + 1) / warm
    along = (step - warm) / max(1, settings.steps - warm)
    low = settings.final_rate
    return settings.learning_rate * (low + (1 - low) * 0.5 * (1 + np.cos(np.pi * along)))


def make_accelerator() -> Accelerator:
    """Join the processes that the launcher started, on the accelerator that this machine has, else on its CPUs."""
    cpu = not torch.accelerator.is_available()
    half = cpu_has_bfloat16() if cpu else torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    if cpu:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    return Accelerator(cpu=cpu, mixed_precision="bf16" if half else "no")


def train(data: Path, output: Path, tasks: list[Task], settings: TrainingSettings) -> None:
    """Train at full depth and write a checkpoint folder; an interrupted run goes on at its last saved step.

    Called in every process that a launcher started. With the same number of processes, a run that was killed and goes
    on ends with the same weights, bit by bit, as one that was not.

    Raises:
        DataError: no episodes, the output folder cannot be written to, another run writes there, it holds another
            model's state, the teacher cannot teach this student, or the board is to be learned in another layout.
        CheckpointError: the teacher or the base is damaged or missing.
    """
    require_writable(output)
    accelerator = make_accelerator()
    leads = accelerator.is_main_process
    with claim(output) if leads else nullcontext():
        board_tasks = [task for task in tasks if task.chain]
        own_tasks = [task for task in tasks if not task.chain] or board_tasks
        if settings.board_lessons and not board_tasks:
            raise DataError(
                f"--board-lessons {settings.board_lessons}: no task of the board is learned; name one with --tasks"
            )
        episodes = load_episodes(data, own_tasks, quiet=not leads)
        origin = load_origin(tasks, settings, accelerator.device)
        teacher, config = origin.teacher, origin.config or with_tasks(configure_model(episodes, settings), tasks)
        if board_tasks and config.layout != "causal":
            raise DataError(f"{board_tasks[0].name} is learned in the layout causal: add --layout causal")
        identity = config.to_json() | origin.hashes
        torch.manual_seed(settings.seed)
        student = Student(config, board=bool(board_tasks))
        weights = origin.first_weights()
        if weights:
            student.network.load_state_dict(weights)
        state = TrainingState(student.to(accelerator.device), settings)
        if (output / STATE).exists():
            state.load(output / STATE, identity)
        targets = teacher_chunks(teacher, episodes, accelerator, output / CHUNKS) if teacher else None
        accelerator.wait_for_everyone()  # all have read the state before the first of them can write the next
        if settings.compile:
            state.student.network.compile_layers()
        share, device = settings.batch_size // accelerator.num_processes, accelerator.device
        process = accelerator.process_index
        batches = Batches(episodes, config, device, targets)
        ahead = BatchesAhead(lambda step: batches.drawn(share, (settings.seed, step, process)), device)
        boards = None
        if board_tasks:
            lessons = BoardBatches(data, board_tasks, config, device, quiet=not leads)
            images = max(1, settings.board_images // accelerator.num_processes)
            boards = BatchesAhead(
                lambda step: lessons.drawn(
                    images, (settings.seed, step, process), hops=lesson_at(step, settings.board_lessons) or 0
                ),
                device,
            )
        keeper = None
        if leads:
            validation = Batches(load_episodes(data, own_tasks, validation=True, quiet=True), config, device)
            board = None
            if board_tasks:
                board = BoardBatches(data, board_tasks, config, device, validation=True, quiet=True)
            keeper = Keeper(state, output, settings, validation, len(episodes), identity, board)
        progress = tqdm(total=settings.steps, initial=state.step, unit="step", disable=not leads, mininterval=5.0)
        while state.step < settings.steps:
            lesson = lesson_at(state.step, settings.board_lessons) if boards else None
            if boards and lesson is not None:
                loss = state.student.lesson_loss(boards.take(state.step), accelerator.autocast, lesson)
                error = loss.detach()
            else:
                loss, error = state.student.loss(ahead.take(state.step), accelerator.autocast)
                if boards:
                    random = np.random.default_rng((settings.seed, state.step, process, 2))
                    asked, error = state.student.board_loss(boards.take(state.step), accelerator.autocast, random)
                    loss = loss + asked
            accelerator.backward(loss)
            average_gradients(state.parameters, accelerator)
            state.update(soft_start(state.step, settings.board_lessons) * learning_rate(state.step, settings))
            if keeper:
                progress.update()
                progress.set_postfix(l1=f"{keeper.after_step(float(error), accelerator.autocast):.4f}", refresh=False)
        progress.close()
        accelerator.wait_for_everyone()
    accelerator.end_training()


def average_gradients(parameters: Sequence[Tensor], accelerator: Accelerator) -> None:
    """Average the gradients of all processes, as one vector and so always in one order, and clip its norm to 1.

    What a lesson does not reach has none: zeros.
    """
    gradients = [torch.zeros_like(own) if own.grad is None else own.grad for own in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    flat = accelerator.reduce(flat, "mean")
    flat *= torch.clamp(1.0 / (flat.norm() + 1e-6), max=1.0)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter)

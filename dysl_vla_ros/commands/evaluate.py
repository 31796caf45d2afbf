"""``dysl_vla evaluate``: closed-loop success in the simulator, of one method or of many side by side."""

import argparse
import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dysl_vla_ros.commands import method_comparison
from dysl_vla_ros.commands.argument_checks import require_numbers, require_policy
from dysl_vla_ros.control.chunk_time import require_actions, require_playable
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.conditions import CONDITION_CHOICES, Condition, condition_named
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.settings import ControlSettings, RuntimeSettings, SkippingSettings, build
from dysl_vla_ros.simulation.tasks import EVALUATION_SEED, TASK_CHOICES, TASKS, Task, tasks_named

if TYPE_CHECKING:
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.description = (
        "Measure success, depth and time in simulation. Without --methods: one method, as the DySL folder and the "
        "options have it, or --full-depth. With --methods: all of them on the same scenes, in turns, with intervals; "
        "interrupted, it goes on where it stopped when it is started again, with more --seeds it adds scenes."
    )
    parser.add_argument("checkpoint", type=Path, help="folder of the base checkpoint")
    parser.add_argument("--adapters", default="", help="DySL folder (default: the checkpoint's own `dysl`)")
    parser.add_argument(
        "--tasks",
        nargs="+",
        metavar="TASK",
        help=f"of {TASK_CHOICES} (default: all that the policy was trained on)",
    )
    parser.add_argument("--seeds", "--episodes", type=int, default=20, help="scenes a task")
    parser.add_argument("--first-seed", type=int, default=EVALUATION_SEED, help="of the scenes")
    parser.add_argument("--full-depth", action="store_true", help="run every layer")
    parser.add_argument(
        "--params", type=Path, help="parameter file, as for params_file:=; skipping, guidance and m of it are used"
    )
    parser.add_argument("--threshold", type=float, help="of the controllers (default: of --params, else 0.5)")
    parser.add_argument("--actions-per-inference", type=int, help="actions of a chunk played (default: of --params, 1)")
    parser.add_argument("--max-ticks", type=int, default=200, help="control ticks of 50 ms before an episode is lost")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds from picture to command")
    parser.add_argument(
        "--condition", default="plain", metavar="NAME", help=f"what the policy meets, one of {CONDITION_CHOICES}"
    )
    parser.add_argument("--max-linear-seam", type=float, default=ControlSettings.max_linear_seam, metavar="M/S",
                        help="bound on the jump where chunks meet (control.max_linear_seam); 0: none")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes of one thread each")
    parser.add_argument("--json", type=Path, help="also write the summary to this file (not with --methods)")
    method_comparison.add_arguments(parser)


def runtime_settings(arguments: argparse.Namespace) -> RuntimeSettings:
    """Return the settings of ``--params``, what other arguments say put over them."""
    settings = read_params_file(arguments.params).runtime if arguments.params else RuntimeSettings()
    skipping = settings.skipping
    if arguments.threshold is not None:
        skipping = build(SkippingSettings, asdict(skipping) | {"threshold": arguments.threshold})
    if arguments.full_depth:
        skipping = replace(skipping, rule="full")
    m = settings.actions_per_inference if arguments.actions_per_inference is None else arguments.actions_per_inference
    return replace(settings, skipping=skipping, actions_per_inference=m)


def run(arguments: argparse.Namespace) -> int:
    """Play, show a bar while playing and a table at the end."""
    if arguments.methods:
        return method_comparison.run(arguments, evaluation_settings(arguments))
    return evaluate_one(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what does not go together, what is not there, and settings out of range."""
    require_numbers(vars(arguments), seeds=1, jobs=1, max_ticks=1, delay=0)
    if arguments.methods:
        method_comparison.check(arguments)
    else:
        method_comparison.refuse_without_methods(arguments)
    require_policy(arguments.checkpoint, arguments.adapters)
    runtime_settings(arguments)
    control_settings(arguments)
    condition = condition_named(arguments.condition)
    if arguments.tasks:
        condition.require(*tasks_named(arguments.tasks))


def control_settings(arguments: argparse.Namespace) -> ControlSettings:
    """Return how chunks are joined."""
    return build(ControlSettings, {"max_linear_seam": arguments.max_linear_seam})


def evaluation_settings(arguments: argparse.Namespace) -> "EvaluationSettings":
    """Return how episodes are played, and of what: of all that the policy was trained on, where no task is named."""
    from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings

    runtime, condition = runtime_settings(arguments), condition_named(arguments.condition)
    if arguments.tasks:
        tasks = tasks_named(arguments.tasks)
    else:
        tasks = tasks_under(condition, trained_tasks(arguments.checkpoint))
    require_deployable(arguments, runtime.actions_per_inference)
    return EvaluationSettings(
        runtime=runtime,
        control=control_settings(arguments),
        max_ticks=arguments.max_ticks,
        delay=arguments.delay,
        first_seed=arguments.first_seed,
        seeds=arguments.seeds,
        checkpoint=str(arguments.checkpoint),
        adapters=arguments.adapters,
        tasks=tuple(tasks),
        condition=condition.name,
    )


def require_deployable(arguments: argparse.Namespace, actions_per_inference: int) -> None:
    """Refuse what a node with these settings and this checkpoint would refuse.

    Raises:
        CheckpointError: the folder is no checkpoint.
        SettingError: --params or the number of actions contradicts what the policy gives.
    """
    from dysl_vla_ros.policies.registry import load_policy

    action = load_policy(arguments.checkpoint).action
    if arguments.params:
        control = read_params_file(arguments.params).control
        require_playable(replace(control, actions_per_inference=actions_per_inference), action)
    require_actions(actions_per_inference, action.horizon)


def trained_tasks(checkpoint: Path) -> list[Task]:
    """Return the tasks that the policy was trained on, and say which were left out.

    Raises:
        CheckpointError: the folder is no checkpoint.
        DataError: it was trained on none of them.
    """
    from dysl_vla_ros.policies.registry import load_policy

    known = load_policy(checkpoint).instructions
    chosen = [task for task in TASKS.values() if task.instruction in known]
    if not chosen:
        raise DataError(f"{checkpoint} was trained on no task of the simulator; name some by --tasks")
    left_out = [task.name for task in TASKS.values() if task not in chosen]
    if left_out:
        print(f"the policy was not trained on {', '.join(left_out)}: left out (--tasks names tasks)")
    return chosen


def tasks_under(condition: Condition, tasks: list[Task]) -> list[Task]:
    """Return the tasks that a condition can be had with, and say which were left out.

    Raises:
        SettingError: there are none.
    """
    chosen = [task for task in tasks if condition.fits(task)]
    if not chosen:
        condition.require(*tasks)
    left_out = [task.name for task in tasks if task not in chosen]
    if left_out:
        print(f"{condition.unfit} of {', '.join(left_out)}: left out under the condition {condition.name}")
    return chosen


def evaluate_one(arguments: argparse.Namespace) -> int:
    """Play one method."""
    from tqdm import tqdm

    from dysl_vla_ros.evaluation.closed_loop import evaluate
    from dysl_vla_ros.records.summary import summarise, write_summary
    from dysl_vla_ros.records.summary_table import print_table
    from dysl_vla_ros.runtime.step import Runtime

    settings = evaluation_settings(arguments)
    Runtime.load(str(arguments.checkpoint), arguments.adapters)  # a bad folder is refused before any process starts
    episodes = []
    bar = tqdm(total=len(settings.tasks) * arguments.seeds, unit="episode")
    for record in evaluate(settings, arguments.jobs):
        episodes.append(record)
        bar.update()
        bar.set_postfix(success=f"{sum(e.success for e in episodes) / len(episodes):.0%}")
    bar.close()
    episodes.sort(key=lambda record: (list(TASKS).index(record.task), record.seed))
    summary = summarise(
        episodes, checkpoint=arguments.checkpoint.name, delay=arguments.delay, condition=arguments.condition
    )
    print_table(summary)
    if arguments.json:
        write_summary(arguments.json, summary)
    return 0

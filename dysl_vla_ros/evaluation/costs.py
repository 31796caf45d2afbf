"""What inferences cost on this machine, measured once on a full-depth run in a calibration scene."""

from collections.abc import Sequence
from dataclasses import replace

from dysl_vla_ros.evaluation.closed_loop import EvaluationSettings, full_depth_runs
from dysl_vla_ros.evaluation.real_time import cost_name
from dysl_vla_ros.runtime.cost_model import CostModel, measure_cost
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.simulation.seeds import CALIBRATION_SEEDS
from dysl_vla_ros.simulation.tasks import chosen_on


def measure_costs(runtimes: Sequence[Runtime], settings: EvaluationSettings) -> dict[str, CostModel]:
    """Return the cost of each runtime's inferences, by :func:`~dysl_vla_ros.evaluation.real_time.cost_name`.

    Args:
        runtimes: that are timed, one after the other: nothing else should run on the machine.
        settings: ``checkpoint`` and ``tasks`` say what they look at: one scene of the first task.

    Raises:
        DataError: the scene gives too few observations.
    """
    runs, _ = full_depth_runs(
        replace(
            settings,
            tasks=tuple(chosen_on(settings.tasks)[:1]),
            first_seed=CALIBRATION_SEEDS.start,
            seeds=1,
            condition="plain",
            real_time=None,
            chunk=0,
        ),
        jobs=1,
    )
    observations = [observation for run in runs for observation in run.observations]
    return {cost_name(runtime): measure_cost(runtime, observations) for runtime in runtimes}


def full_depth_ms(runtime: Runtime, cost: CostModel) -> float:
    """Return what an inference of a runtime takes when every layer runs, milliseconds."""
    return cost.base + cost.layer * len(runtime.policy.layers)

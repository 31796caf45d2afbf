"""Guidance as the paper has it, searched as fairly as our own: its stride, its first drops, controllers as they are.

For the comparison of methods, where the folder at hand was calibrated to another stride.
"""

from collections.abc import Sequence

from dysl_vla_ros.calibration.guidance_values import starting_points, trace_continuity
from dysl_vla_ros.calibration.remembered_passes import RememberedPasses
from dysl_vla_ros.calibration.threshold_search import (
    REMEMBERED_AT,
    STEP_FACTORS,
    VERIFIED_SHARES,
    choose,
    replay,
)
from dysl_vla_ros.runs.full_depth import FullDepthRun, thin_out
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import GuidanceSettings

INFERENCES = 400  # of the runs that the search replays
TARGET_LAYERS = 0.33  # largest mean share of layer calls, as `dysl_vla calibrate` has it


def paper_guidance(runtime: Runtime, runs: Sequence[FullDepthRun], m: int) -> GuidanceSettings:
    """Return the step and the threshold of least action error within the wanted depth, for the paper's guidance.

    Where decoding has a memory, so that single passes cannot be replayed, the starting points measured on the runs.

    Args:
        runtime: with a DySL folder; its controllers stay as they are, at a threshold of 0.5.
        runs: at full depth, at the same m.
        m: actions played of each chunk.

    Raises:
        DataError: continuity never fell in the runs.
    """
    assert runtime.dysl is not None
    partition = runtime.dysl.partition
    trace = trace_continuity(runs, partition, runtime.policy.action, m)
    guidance = [
        starting_points(trace, partition, "paper", "first", share, factor)
        for factor in STEP_FACTORS
        for share in VERIFIED_SHARES
    ]
    if runtime.policy.initial_state() is not None:
        return guidance[0]
    passes = RememberedPasses(runtime, thin_out(runs, INFERENCES))
    trials = [replay(passes, m, REMEMBERED_AT, own) for own in guidance]  # at this error the threshold is just 0.5
    return choose(trials, TARGET_LAYERS * partition.num_layers).guidance

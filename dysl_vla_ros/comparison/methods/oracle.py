"""``oracle``: a bound: it looks at the floor's and the full action, and runs every layer where they differ.

What its looks cost is counted neither in layers nor in time. From which difference on it runs every layer is set such
that it comes to the mean depth of ``dysl`` on calibration scenes.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dysl_vla_ros.comparison.methods.action_errors import ActionErrors
from dysl_vla_ros.comparison.methods.method import CalibrationScenes, Method, MethodInputs, Prepared, trained, unguided
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.runs.full_depth import FullDepthRun
from dysl_vla_ros.runtime.folder import CALIBRATION
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import actions_judged
from dysl_vla_ros.skipping.depth_rules import Oracle, StaticOnly
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import StackContext, StackResult

if TYPE_CHECKING:
    from dysl_vla_ros.comparison.plan import Comparison

THRESHOLD = "oracle_threshold"


def oracle_threshold(runtime: Runtime, runs: Sequence[FullDepthRun], m: int, depth: float) -> float:
    """Return the difference of floor and full action (L1, normalised) above which so few run full depth on the runs
    that ``depth`` layers are run on average.
    """
    assert runtime.dysl is not None and runs
    partition: LayerPartition = runtime.dysl.partition
    modules = runtime.dysl.modules
    errors = ActionErrors(runtime.policy, runs, m, modules.bridge).errors(StaticOnly(partition, modules))
    floor, full = len(partition.static), partition.num_layers
    share = min(1.0, max(0.0, (depth - floor) / max(1, full - floor)))
    return float(np.quantile(errors, 1.0 - share))


def _without_depth(comparison: "Comparison") -> bool:
    """Tell whether the threshold is given, or the one that controllers were calibrated to."""
    return comparison.oracle_threshold is not None or comparison.calibration_seeds == 0


def _set_up(scenes: CalibrationScenes) -> Mapping[str, Any]:
    return {THRESHOLD: _threshold(scenes)}


def _threshold(scenes: CalibrationScenes) -> float:
    if scenes.comparison.oracle_threshold is not None:
        return scenes.comparison.oracle_threshold
    runtime, _ = scenes.loaded()
    runs = scenes.runs()
    if runs and scenes.depth is not None and runtime.policy.initial_state() is None:
        return oracle_threshold(runtime, runs, scenes.m, scenes.depth)
    options = scenes.options
    folder = Path(options.adapters) if options.adapters else Path(options.checkpoint) / "dysl"
    calibration = json.loads((folder / CALIBRATION).read_text(encoding="utf-8"))
    tolerated = calibration.get("chosen", {}).get("tolerated_error")
    if tolerated is None:
        raise DataError(
            f"{folder / CALIBRATION} has no tolerated error for the oracle; name a threshold by "
            "--oracle-threshold, or let calibration runs be played (--calibration-seeds)"
        )
    return float(tolerated)


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    threshold, policy = given.values[THRESHOLD], runtime.policy
    m = actions_judged(given.settings.actions_per_inference)

    def apart(floor: StackResult, full: StackResult, context: StackContext) -> float:
        one, other = (policy.engine.numpy(runtime.decoded(result, context)) for result in (floor, full))
        return float(np.abs(one[:, :m] - other[:, :m]).mean())

    runtime.rule_override = lambda points: Oracle(
        dysl.partition, dysl.modules, policy.layers, apart, threshold, policy.run_lengths
    )
    return Prepared(runtime, unguided(given.settings), trained(dysl, dysl.partition.floor))


METHOD = Method(
    "a bound: full depth where the floor's action differs; looking is not counted",
    _prepare,
    depth=True,
    without_depth=_without_depth,
    set_up=_set_up,
    sets=(THRESHOLD,),
    bound=True,
)

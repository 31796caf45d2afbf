"""Success over slow-down: methods side by side while time goes on. What ``dysl_vla evaluate --real-time`` does."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dysl_vla_ros.comparison.compare import ComparisonSettings, compare
from dysl_vla_ros.comparison.methods.method import Library
from dysl_vla_ros.comparison.methods.registry import METHODS, read_word
from dysl_vla_ros.comparison.real_time_plot import write_real_time_plot
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.evaluation.costs import full_depth_ms, measure_costs
from dysl_vla_ros.evaluation.evaluate import fitted
from dysl_vla_ros.evaluation.real_time import RealTime, cost_name, cost_to_json
from dysl_vla_ros.evaluation.slow_down import SLOW_DOWNS
from dysl_vla_ros.files import require_writable, write_json
from dysl_vla_ros.records.machine import commit, machine, versions
from dysl_vla_ros.runtime.cost_model import CostModel

LOG = logging.getLogger(__name__)
COSTS, CURVE = "costs.json", "real_time.json"
FORMAT_VERSION = 1
SHOWN = ("method", "tasks", "actions_per_inference", "runtime", "episodes", "successes", "success_low", "success_high",
         "difference", "difference_low", "difference_high", "inferences_mean", "layers_mean")  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Success over slow-down, as plain values and as files."""

    values: Mapping[str, Any]  # real_time.json
    written: Sequence[Path]  # it, and the plot


def real_time_curve(
    checkpoint: str | Path,
    settings: ComparisonSettings,
    out: str | Path = "evaluation_out",
    *,
    slow_downs: Sequence[float] = SLOW_DOWNS,
    chunks: Sequence[int] = (0,),
    jobs: int = 1,
) -> Curve:
    """Compare methods at each slow-down, write ``real_time.json`` and ``real_time.png``.

    Costs are measured once and kept in ``out/costs.json``; each comparison has a folder of its own below ``out`` and is
    gone on with.

    Args:
        checkpoint: folder of the base checkpoint, whose full depth the slow-downs are of.
        settings: what is compared.
        out: folder for the results.
        slow_downs: control periods that an inference at full depth takes.
        chunks: how many actions of each chunk may be played; 0: all.
        jobs: processes of one thread each.

    Raises:
        As :func:`~dysl_vla_ros.comparison.compare.compare`.
    """
    out = Path(out)
    require_writable(out)
    costs, full_ms = _costs(checkpoint, settings, out)
    rows = []
    for chunk in chunks:
        for slow_down in slow_downs:
            real_time = RealTime(slow_down, full_ms, costs)
            evaluation = replace(settings.evaluation, real_time=real_time, chunk=chunk)
            folder = out / f"slow_down_{slow_down:g}{f'_chunk_{chunk}' if chunk else ''}"
            LOG.info("full depth takes %g control periods: %s", slow_down, folder)
            done = compare(checkpoint, replace(settings, evaluation=evaluation), folder, jobs=jobs)
            rows += [
                {"slow_down": slow_down, "chunk": chunk, **{name: row[name] for name in SHOWN}}
                for row in done.table["methods"]
            ]
    values = {
        "format_version": FORMAT_VERSION,
        "machine": machine(),
        "versions": versions(),
        "commit": commit(),
        "checkpoint": Path(checkpoint).name,
        "full_ms": round(full_ms, 4),
        "costs": {name: cost_to_json(own) for name, own in costs.items()},
        "first_seed": settings.evaluation.first_seed,
        "seeds": settings.evaluation.seeds,
        "max_ticks": settings.evaluation.max_ticks,
        "condition": settings.evaluation.condition,
        "rows": rows,
    }
    write_json(out / CURVE, values)
    return Curve(values, (out / CURVE, write_real_time_plot(out, values)))


def _costs(checkpoint: str | Path, settings: ComparisonSettings, out: Path) -> tuple[dict[str, CostModel], float]:
    """Return the costs kept in ``out``, measured where they are not; and full depth's milliseconds.

    Where methods are played on several runtimes, slow-downs are of full depth on the one named first.
    """
    evaluation = replace(settings.evaluation, checkpoint=str(checkpoint))
    words, adapters = [read_word(word) for word in settings.methods], evaluation.adapters
    exports = {(str(checkpoint), adapters): evaluation.engine.export} if evaluation.engine.export else {}
    library = Library(evaluation.device, exports)
    runtimes, engines = [], list(dict.fromkeys(word.runtime or evaluation.engine.runtime for word in words))
    for engine in engines:
        names = dict.fromkeys(word.method for word in words if (word.runtime or evaluation.engine.runtime) == engine)
        runtimes.append(library.with_adapters(str(checkpoint), adapters, engine))
        others = (settings.checkpoints[own] for own in names if METHODS[own].checkpoint and own in settings.checkpoints)
        runtimes += [library.alone(folder, engine) for folder in dict.fromkeys(others)]
    evaluation = replace(evaluation, engine=EngineChoice(engines[0], evaluation.engine.export))
    evaluation = fitted(evaluation, runtimes[0].policy)
    hashes = [cost_name(runtime) for runtime in runtimes]
    kept = _kept(out / COSTS)
    if not kept.keys() >= set(hashes):
        LOG.info("timing inferences of %d polic%s ...", len(runtimes), "ies" if len(runtimes) > 1 else "y")
        kept = measure_costs(runtimes, evaluation)
        write_json(out / COSTS, {name: cost_to_json(own) for name, own in kept.items()})
        kept = _kept(out / COSTS)  # rounded, as a run that goes on has them
    return {name: kept[name] for name in hashes}, full_depth_ms(runtimes[0], kept[hashes[0]])


def _kept(path: Path) -> dict[str, CostModel]:
    if not path.exists():
        return {}
    try:
        return {name: CostModel(**own) for name, own in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read: {error}; name another folder by --out to measure anew") from error

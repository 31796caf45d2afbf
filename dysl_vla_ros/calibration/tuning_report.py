"""What ``dysl_vla tune`` leaves: a parameter file for ``params_file:=``, ``tune.json``, and a plot with the choice.

The page loads nothing and runs no script.
"""

import dataclasses
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from dysl_vla_ros.calibration.tuning import Figures, Target, Trial, Tuning, front
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import DataError
from dysl_vla_ros.files import written_together
from dysl_vla_ros.params_file import params_text
from dysl_vla_ros.runtime.cost_model import CostModel
from dysl_vla_ros.settings import GuidanceSettings, ModelSettings, RuntimeSettings, SkippingSettings

PARAMS, RESULT, PLOT, PAGE = "tuned.yaml", "tune.json", "tune.svg", "tune.html"
PARTS = {"translation": "translation, mm", "rotation": "rotation, degrees", "gripper": "gripper, opening"}
BLUE, ORANGE, INK, FAINT = "#1f5fa8", "#d9730d", "#1c2530", "#8a94a0"
TUNED = ("window", "step", "verify_threshold", "dead_band", "stride", "warmup", "verify_on", "prior", "verify")
_STYLE = {
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "dysl_vla_ros",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": FAINT,
    "text.color": INK,
    "legend.frameon": False,
}


def require_new(folder: Path, force: bool) -> None:
    """Refuse to write over an earlier result.

    Raises:
        DataError: there is one, and ``force`` is false.
    """
    there = [name for name in (PARAMS, RESULT, PLOT, PAGE) if (folder / name).exists()]
    if there and not force:
        raise DataError(f"{folder} has {', '.join(there)} already; name another folder with --out, or add --force")


def parameters(settings: RuntimeSettings) -> dict[str, Any]:
    """Return the dynamic parameters of a choice, by their ROS names."""
    skipping, guidance = dataclasses.asdict(settings.skipping), dataclasses.asdict(settings.guidance)
    return {f"{SkippingSettings.group}.threshold": skipping["threshold"]} | {
        f"{GuidanceSettings.group}.{name}": guidance[name] for name in TUNED
    }


def engine_parameters(engine: EngineChoice) -> dict[str, Any]:
    """Return the parameters that say what computes, by their ROS names; of torch none."""
    if engine == EngineChoice():
        return {}
    said = {"runtime": engine.runtime} | ({"export": engine.export} if engine.export else {})
    return {f"{ModelSettings.group}.{name}": value for name, value in said.items()}


def write_results(
    folder: Path,
    tuning: Tuning,
    target: Target,
    cost: CostModel,
    engine: EngineChoice,
    *,
    command: str,
    data: Sequence[str],
    seed: int,
) -> None:
    """Write the four files, all of them or none.

    Args:
        folder: for them; made where it is missing.
        tuning: what was found.
        target: what was wanted.
        cost: this machine's.
        engine: what computed, and is to compute: on the other one milliseconds are others.
        command: that was given.
        data: where the runs came from, with how much, a line each.
        seed: of the search.
    """
    figures = {name: sentence(trial.figures, target.unit) for name, trial in (
        ("choice", tuning.choice), ("before", tuning.before))}  # fmt: skip
    comment = [
        command,
        *data,
        f"wanted: {target}; {'kept' if tuning.met else 'NOT kept'} on runs that were not searched on",
        *(f"{name}: {text}" for name, text in figures.items()),
        f"{len(tuning.trials)} trials, seed {seed}; milliseconds: {cost_sentence(cost)}",
        "ros2 launch dysl_vla_ros dysl_vla.launch.py checkpoint:=FOLDER params_file:=" + PARAMS,
    ]
    plot = pareto_plot(tuning, target)
    chosen = engine_parameters(engine) | parameters(tuning.choice.settings)
    result = {
        "command": command,
        "data": list(data),
        "seed": seed,
        "runtime": engine.runtime,
        "target": dataclasses.asdict(target),
        "met": tuning.met,
        "cost": dataclasses.asdict(cost),
        "choice": _plain(tuning.choice),
        "before": _plain(tuning.before),
        "finalists": [_plain(trial) for trial in tuning.finalists],
        "trials": [_plain(trial) for trial in tuning.trials],
    }
    with written_together() as files:
        files.add_text(folder / PARAMS, params_text(chosen, "\n".join(comment)))
        files.add_text(folder / PLOT, plot)
        files.add_text(folder / PAGE, _page(tuning, target, plot, comment))
        files.add_json(folder / RESULT, result)


def sentence(figures: Figures, unit: str) -> str:
    """Return what some settings do, in one line; ``unit``: of deviations."""
    return (
        f"{figures.layers:.1f} layers, {figures.milliseconds:.1f} ms (p95 {figures.milliseconds_p95:.1f}), deviation "
        f"{figures.deviation:.2f} {unit} (p95 {figures.deviation_p95:.2f}), {figures.verified:.0%} verified, over "
        f"{figures.inferences} inferences"
    )


def cost_sentence(cost: CostModel) -> str:
    """Return this machine's cost in one line."""
    return (
        f"{cost.base:.2f} + {cost.layer:.3f} a layer call + {cost.verification:.2f} where verified, measured here "
        f"(95% of the steps within {cost.spread:+.1f})"
    )


def pareto_plot(tuning: Tuning, target: Target) -> str:
    """Draw deviation against milliseconds: all trials, the front, and on held-out runs the choice and what was before.

    Returns:
        SVG.
    """
    whole = [trial for trial in tuning.trials if trial.whole]
    best = front(whole, target.axis)

    def deviation(trial: Trial) -> float:
        return float(getattr(trial.figures, target.axis))

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(7.2, 4.0), layout="constrained")
        axes = figure.add_subplot()
        rung = [trial for trial in tuning.trials if not trial.whole]
        for trials, colour, label in ((rung, FAINT, "a first look, on some runs"), (whole, BLUE, "on all runs")):
            x, y = [t.figures.milliseconds for t in trials], [deviation(t) for t in trials]
            axes.scatter(x, y, s=10, color=colour, alpha=0.55, linewidths=0, label=f"{label} ({len(trials)})")
        axes.step(
            [t.figures.milliseconds for t in best],
            [deviation(t) for t in best],
            where="post",
            color=BLUE,
            linewidth=1.2,
            label="front",
        )
        for trial, marker, label in (
            (tuning.before, "s", "before, held-out runs"),
            (tuning.choice, "*", "choice, held-out runs"),
        ):
            own = trial.figures
            size = 130 if marker == "*" else 45
            axes.scatter(
                [own.milliseconds], [deviation(trial)], s=size, marker=marker, color=ORANGE, label=label, zorder=3
            )
        draw = axes.axvline if target.milliseconds is not None else axes.axhline
        limit = target.milliseconds if target.milliseconds is not None else target.deviation
        draw(float(limit or 0.0), color=INK, linewidth=0.9, linestyle="--", label=f"wanted: {target}")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("milliseconds an inference, mean, by the cost model")
        of_all = "mean" if target.deviation is None else "95th percentile"
        axes.set_ylabel(f"deviation from full depth, {target.unit}, {of_all}")
        axes.legend(loc="upper right", fontsize=8)
        output = io.StringIO()
        FigureCanvasSVG(figure).print_svg(output, metadata={"Date": None})
    return output.getvalue()


def _plain(trial: Trial) -> dict[str, Any]:
    own = dataclasses.asdict(trial.figures)
    figures = {name: round(value, 5) for name, value in (own | dict(own.pop("parts"))).items()}
    return {
        "stage": trial.stage,
        "all_runs": trial.whole,
        "parameters": parameters(trial.settings),
        "figures": figures,
    }


def _page(tuning: Tuning, target: Target, plot: str, comment: Sequence[str]) -> str:
    changed = parameters(tuning.before.settings)
    rows: list[Sequence[Any]] = [
        (name, changed[name], value) for name, value in parameters(tuning.choice.settings).items()
    ]
    names: dict[str, str] = {
        "layers": "layers",
        "milliseconds": "ms, mean",
        "milliseconds_p95": "ms, p95",
        "deviation": f"deviation, {target.unit}",
        "deviation_p95": f"deviation, {target.unit}, p95",
        "verified": "share verified",
    }
    before, choice = (_plain(trial)["figures"] for trial in (tuning.before, tuning.choice))
    names |= {name: PARTS.get(name, name.replace("_", ", ")) for name, _ in tuning.choice.figures.parts}
    rows += [(words, f"{before[key]:.3f}", f"{choice[key]:.3f}") for key, words in names.items()]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>\n" for row in rows)
    lines = "<br>\n".join(html.escape(line) for line in comment)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>dysl_vla tune</title>
<style>
body {{ margin: 0 auto; max-width: 860px; padding: 1.2rem 1rem; font: 15px/1.45 system-ui, sans-serif; color: {INK}; }}
svg {{ width: 100%; height: auto; }} p {{ color: #5d6875; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; }}
td, th {{ padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #dde2e8; text-align: left; }}
</style></head><body>
<h1>{html.escape(str(target)[0].upper() + str(target)[1:])}: {"kept" if tuning.met else "not kept"}</h1>
{plot[plot.index("<svg") :]}
<table><tr><th></th><th>before</th><th>choice</th></tr>
{body}</table>
<p>Figures are of runs that were not searched on. {lines}</p>
</body></html>
"""

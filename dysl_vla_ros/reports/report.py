"""``report.html``: one page that holds everything it shows, for engineers who would rather look than read.

Above: success, layers, milliseconds. Then a table of the instructions, and for one episode of each: what the camera
saw, which layers ran when, continuity, allow points, latency. The page loads nothing and runs no script.
"""

import base64
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from dysl_vla_ros.files import write_text
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.reports import charts as plots

_FILM_PICTURES = 6


def write_report(path: Path, episodes: Sequence[EpisodeRecord], summary: Mapping[str, Any]) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file to write.
        episodes: what was played; one episode of each instruction is shown (see :func:`shown_episodes`).
        summary: what :func:`dysl_vla_ros.records.summary.summarise` made of the same episodes.
    """
    write_text(path, render_report(episodes, summary))


def render_report(episodes: Sequence[EpisodeRecord], summary: Mapping[str, Any]) -> str:
    """Return the page's HTML."""
    inferences = [inference for episode in episodes for inference in episode.inferences]
    histograms = {task["instruction"]: task["allow_points"] for task in summary["tasks"]}
    overview = []
    if inferences:
        charts = (plots.layers_histogram, plots.latency_histogram, plots.age_histogram)
        overview = [draw(inferences) for draw in charts]
    return page_template("dysl_vla_ros.reports", "report.html.j2").render(
        summary=summary,
        overview=[chart for chart in overview if chart],
        sections=[_section(episode, histograms[episode.instruction]) for episode in shown_episodes(episodes)],
    )


def page_template(package: str, name: str) -> jinja2.Template:
    """Return a page's template; the look of all pages is its variable ``style``, figures are written by ``number``."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    look = importlib.resources.files("dysl_vla_ros.reports").joinpath("report.css").read_text("utf-8")
    environment.globals["style"] = look
    return environment.from_string(importlib.resources.files(package).joinpath(name).read_text("utf-8"))


def image_source(jpeg: bytes) -> str:
    """Return a JPEG for an ``src`` attribute, so that the page loads nothing."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()


def shown_episodes(episodes: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Choose one episode of each instruction: the first that succeeded, else the first that inferred anything."""
    chosen: dict[str, EpisodeRecord] = {}
    for episode in episodes:
        before = chosen.get(episode.instruction)
        if episode.inferences and (before is None or (episode.success and not before.success)):
            chosen[episode.instruction] = episode
    return list(chosen.values())


def _section(episode: EpisodeRecord, histograms: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Draw everything that the page shows of one episode, and its task's allow points over all episodes."""
    charts = [plots.executed_layers(episode), plots.layer_calls(episode), plots.continuity(episode)]
    if episode.blocks:
        charts.append(plots.allow_points(episode))
    charts.append(plots.latency(episode))
    if histograms:
        charts.append(plots.allow_point_shares(histograms))
    return {
        "episode": episode,
        "charts": charts,
        "film": [
            {"time": picture.time, "src": image_source(picture.jpeg)}
            for picture in _evenly(episode.pictures, _FILM_PICTURES)
        ],
    }


def _evenly(items: Sequence[Any], count: int) -> list[Any]:
    """Return at most ``count`` items, spread from the first to the last."""
    if len(items) <= count:
        return list(items)
    return [items[round(place * (len(items) - 1) / (count - 1))] for place in range(count)]


def _number(value: float | None, digits: int = 1) -> str:
    """Write a figure with so many digits after the point; a dash where nothing was measured."""
    return "-" if value is None else f"{value:.{digits}f}"

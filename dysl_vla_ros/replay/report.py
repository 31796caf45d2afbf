"""``replay.html``: what skipping cost on a recording, on one page that holds everything it shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dysl_vla_ros.files import write_text
from dysl_vla_ros.records.phases import PHASES
from dysl_vla_ros.records.trace import EpisodeRecord
from dysl_vla_ros.replay import plots
from dysl_vla_ros.replay.against import Comparison
from dysl_vla_ros.replay.pictures import FILM_PICTURES, Film
from dysl_vla_ros.replay.run import FULL, SKIPPING, Replay
from dysl_vla_ros.replay.tracks import PARTS, Track
from dysl_vla_ros.reports import charts as shared
from dysl_vla_ros.reports.report import image_source, page_template

MOST_MARKS = 400  # of verifications over one film
MOST_POINTS = 1200  # of one line: a page must open quickly


def write_report(
    path: Path,
    about: Mapping[str, Any],
    timings: Mapping[str, Any],
    replay: Replay,
    phase: NDArray[np.int8],
    pair: Comparison | None,
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: the file.
        about: what ``replay.json`` holds beside moments and timings.
        timings: its ``timings``.
        replay: what was replayed.
        phase: (n,) of each moment.
        pair: what it is compared with, if anything.
    """
    page = _Page(replay, phase, pair)
    html = page_template("dysl_vla_ros.replay", "report.html.j2").render(
        about=about,
        timings=timings,
        phases=PHASES,
        parts=PARTS,
        overview=page.overview(about),
        measures=replay.measures,
        lead=replay.measures[0],
        has_gripper=any(measure.name == "gripper" for measure in replay.measures),
        sections=[page.section(film) for film in replay.album.films],
        worst=page.worst(),
    )
    write_text(path, html)


class _Page:
    """Draws what the template shows."""

    def __init__(self, replay: Replay, phase: NDArray[np.int8], pair: Comparison | None) -> None:
        self.replay, self.phase, self.pair = replay, phase, pair
        self.full, self.skipping = replay.track(FULL), replay.track(SKIPPING)
        self.times = replay.moments["time"]
        self.lead = replay.measures[0]
        self.apart = self.lead.apart(self.skipping.columns["action"], self.full.columns["action"])

    def overview(self, about: Mapping[str, Any]) -> list[str]:
        sides = {FULL: self.full, SKIPPING: self.skipping}
        deviations = {SKIPPING: about["deviation"]}
        rows: dict[str, Any] = dict.fromkeys((*sides, "other"), slice(None))
        if self.pair:
            sides["other"] = self.pair.track
            rows["other"] = self.pair.other_rows
            deviations = {
                "this": about["against"]["this"]["deviation"],
                "other": about["against"]["other"]["deviation"],
            }
        milliseconds = {name: track.columns["milliseconds"][rows[name]] for name, track in sides.items()}
        calls, verified = self.skipping.columns["calls"], self.skipping.columns["verified"]
        return [
            plots.phase_bars(deviations, self.lead),
            plots.layers(calls, verified, self.skipping.layers_total),
            plots.latencies({name: values[:, PARTS.index("total")] for name, values in milliseconds.items()}),
            plots.latency_parts({name: (PARTS, values) for name, values in milliseconds.items()}),
        ]

    def section(self, film: Film) -> dict[str, Any]:
        rows = np.flatnonzero(self.replay.moments["episode"] == film.episode)
        times, verified = self.times[rows], self.skipping.columns["verified"][rows]
        begin = float(times[0])
        drawn = self._drawn(rows)
        return {
            "episode": self.replay.episodes[film.episode],
            "begin": begin,
            "end": float(times[-1]),
            "moments": len(rows),
            "drawn": len(drawn),
            "layers": float(self.skipping.columns["calls"][rows].mean()),
            "verified": int(verified.sum()),
            "charts": self._charts(rows, drawn, begin),
            "film": self._film(film, times),
            "marks": self._marks(rows, times),
        }

    def _charts(self, rows: NDArray[Any], drawn: NDArray[Any], begin: float) -> list[str]:
        """Draw an episode: all of its inferences as pixels, those ``drawn`` as lines."""
        every = self._record(self.skipping, rows, self.times[rows] - begin)
        record = self._record(self.skipping, drawn, self.times[drawn] - begin)
        charts = [shared.executed_layers(every)]
        if (other := self._other(rows, begin)) is not None:
            charts.append(shared.executed_layers(other, "Layers executed, other"))
        charts += [self._deviation(drawn, self.times[drawn] - begin), shared.continuity(record)]
        charts.append(shared.layer_calls(record))
        if record.blocks:
            charts.append(shared.allow_points(record))
        return [*charts, shared.latency(record)]

    def _drawn(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Return the rows that lines are drawn through: where there are too many, of neighbours the one to see.

        That is a verified one, else the one that deviates most.
        """
        share = -(-len(rows) // MOST_POINTS)
        weight = self.apart[rows] + 1e6 * self.skipping.columns["verified"][rows]
        places = [start + int(np.argmax(weight[start : start + share])) for start in range(0, len(rows), share)]
        return rows[places]

    def worst(self) -> list[dict[str, Any]]:
        full, skipping = self.full.columns, self.skipping.columns
        entries = []
        for row, pictures in self.replay.album.worst():
            one, other = skipping["action"][row], full["action"][row]
            entries.append(
                {
                    "time": float(self.times[row]),
                    "episode": int(self.replay.moments["episode"][row]),
                    "instruction": self.replay.episodes[self.replay.moments["episode"][row]].instruction,
                    "phase": PHASES[self.phase[row]],
                    "pictures": [image_source(picture) for picture in pictures],
                    "apart": [(measure, float(measure.apart(one, other))) for measure in self.replay.measures],
                    "calls": int(skipping["calls"][row]),
                    "total": self.skipping.layers_total,
                    "verified": bool(skipping["verified"][row]),
                }
            )
        return entries

    def _record(self, track: Track, rows: Any, times: NDArray[np.float64]) -> EpisodeRecord:
        return EpisodeRecord("", "", 0, blocks=track.blocks, inferences=track.records(times, rows))

    def _other(self, rows: NDArray[Any], begin: float) -> EpisodeRecord | None:
        if self.pair is None:
            return None
        chosen = np.isin(self.pair.rows, rows)
        if not chosen.any():
            return None
        times = self.times[self.pair.rows[chosen]] - begin
        return self._record(self.pair.track, self.pair.other_rows[chosen].tolist(), times)

    def _deviation(self, rows: NDArray[Any], times: NDArray[np.float64]) -> str:
        series = {"skipping": self.apart[rows]}
        if self.pair is not None:
            other = np.full(len(self.times), np.nan)
            actions = self.pair.track.columns["action"][self.pair.other_rows]
            other[self.pair.rows] = self.lead.apart(actions, self.pair.full)
            series["other"] = other[rows]
        moments = self.replay.moments
        if np.isfinite(moments["recorded"][rows, 0]).any():
            from_recorded = self.lead.apart(moments["recorded_skipping"][rows], moments["recorded"][rows])
            series["from the recorded"] = from_recorded
        return plots.deviation(times, series, self.lead, self.phase[rows], self.skipping.columns["verified"][rows])

    def _film(self, film: Film, times: NDArray[np.float64]) -> list[dict[str, Any]]:
        """Return one picture for each equal part of the episode's time: marks above them lie where they belong."""
        taken = np.array([self.times[row] for row, _ in film.frames])
        count = min(FILM_PICTURES, len(taken))
        begins = times[0] + (times[-1] - times[0]) * np.arange(count) / count
        shown = [film.frames[int(np.argmin(np.abs(taken - begin)))] for begin in begins]
        verified = self.skipping.columns["verified"]
        return [
            {
                "src": image_source(picture),
                "time": float(self.times[row] - times[0]),
                "verified": bool(verified[row]),
                "calls": int(self.skipping.columns["calls"][row]),
            }
            for row, picture in shown
        ]

    def _marks(self, rows: NDArray[Any], times: NDArray[np.float64]) -> list[float]:
        """Return where verified inferences lie, in percent of the episode's time."""
        span = max(float(times[-1] - times[0]), 1e-9)
        marked = times[self.skipping.columns["verified"][rows]]
        thinned = marked[:: max(1, -(-len(marked) // MOST_MARKS))]
        return [100.0 * float(time - times[0]) / span for time in thinned]

"""Runs a demo from start to files: plays, shows, and writes what was recorded, also when it is cut short."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from dysl_vla_ros import __version__, stop_signals
from dysl_vla_ros.bags.folder import require_new
from dysl_vla_ros.demo.session import DemoOptions, DemoSession, planned
from dysl_vla_ros.demo.table import LiveTable, PlainLines, View, closing_lines
from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.errors import BagError, CheckpointError, DyslVlaError
from dysl_vla_ros.files import require_writable
from dysl_vla_ros.records.summary import summarise, write_summary
from dysl_vla_ros.records.trace import EpisodeRecord


def run_demo(options: DemoOptions, headless: bool = False) -> dict[str, Any]:
    """Play all episodes and write ``summary.json``, ``report.html`` and ``episode.mp4``; return the summary.

    Cut short by an error or a signal, it ends the nodes, writes what was played so far, and raises.

    Raises:
        DyslVlaError: what went wrong, with the node's own reason.
        KeyboardInterrupt: a stop signal asked for the end.
    """
    _require_usable(options)
    view: View = PlainLines()
    if not headless and sys.stdout.isatty():
        view = LiveTable([task.instruction for task in options.tasks], options.episodes)
    records: list[EpisodeRecord] = []
    with _StopSignals() as signals:
        try:
            with view:
                recording_fault = _play(options, view, signals, records)
        except KeyboardInterrupt:
            _write(options, records, complete=False)
            raise
        except DyslVlaError:
            if records:
                _write(options, records, complete=False)
            raise
        summary = _write(options, records, complete=True)
    if recording_fault:
        raise BagError(f"the demo is whole, its recording is not: {recording_fault}")
    if options.record is not None:
        print(f"recorded: {options.record}", flush=True)
    return summary


def _play(options: DemoOptions, view: View, signals: "_StopSignals", records: list[EpisodeRecord]) -> str:
    """Play the plan; every episode that ended is in ``records``. Return what went wrong with the recording, or ""."""
    view.say("starting the simulated robot and the policy ...")
    with DemoSession(options, lambda: signals.seen) as session:
        for task, seed in planned(options):
            record = EpisodeRecord(task.name, task.instruction, seed)
            view.begin(record)
            session.play(task, seed, record)
            records.append(record)
            view.end(record)
        view.say("stopping ...")
    view.say("done")
    return session.recording_fault()


def _write(options: DemoOptions, records: Sequence[EpisodeRecord], complete: bool) -> dict[str, Any]:
    """Write the three files; the summary first, as it is the quickest."""
    summary = summarise(
        records,
        complete=complete,
        about=_about(options),
        package_version=__version__,
        checkpoint=str(options.checkpoint),
        seed=options.seed,
        full_depth=options.full_depth,
        runtime=options.engine.runtime,
        max_ticks=options.max_ticks,
        cpu_cores=os.cpu_count(),
    )
    write_summary(options.output / "summary.json", summary)
    for line in closing_lines(records):
        print(line)
    # Matplotlib and the encoder are loaded here: their memory and time are not the episodes'.
    from dysl_vla_ros.demo.video import write_video
    from dysl_vla_ros.reports.report import shown_episodes, write_report

    write_report(options.output / "report.html", records, summary)
    filmed = write_video(options.output / "episode.mp4", shown_episodes(records))
    names = ["summary.json", "report.html", *(["episode.mp4"] if filmed else [])]
    print("written: " + ", ".join(str(options.output / name) for name in names), flush=True)
    return summary


def _about(options: DemoOptions) -> str:
    depth = "full depth" if options.full_depth else "skipping as the DySL folder has it"
    computed = "on ONNX Runtime" if options.engine.runtime == ONNX else f"on {options.engine.runtime}"
    episodes = f"{options.episodes} episode{'' if options.episodes == 1 else 's'}"
    played = f"{episodes} a task from seed {options.seed}, checkpoint {options.checkpoint}"
    return f"dysl_vla demo: {played}, {depth}, {computed}"


def _require_usable(options: DemoOptions) -> None:
    """Refuse what can be refused before anything is started or made."""
    if not (options.checkpoint / "config.json").is_file():
        raise CheckpointError(
            f"{options.checkpoint} is no checkpoint: it has no config.json; name its folder by --checkpoint"
        )
    require_writable(options.output, "name a folder that you may write to by --out")
    if options.record is not None:
        require_new(options.record)


class _StopSignals:
    """Notes a stop signal while it is open; waits look at it.

    Nothing is broken off in the middle: not the start of a process, and not the writing of what was played.
    """

    def __init__(self) -> None:
        self.seen = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "_StopSignals":
        for number in stop_signals.heeded():
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, *_: Any) -> None:
        self.seen = True

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

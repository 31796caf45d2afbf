"""Counts the files that a thing passes on its way through the package, in a run that is traced.

A *thing* passes a file where a function of another file, or of a library, gives it in and where it, or what was made of
it, is given out again: as an argument or as what a function returns. What only looks (statistics, diagnostics) gives
nothing out and does not count; neither does what handles any call whatever it carries (``*arguments``). Which things a
way has is said by the names of their types, see :data:`WAYS`; some are of earlier releases, so that those can be
counted too. So the count is of files that a reader opens who follows the thing. Beside it stands how many files ran at
all meanwhile.

    python3 test/files_passed.py [--from PATH] OUT PROGRAM ...   run a program, traced; from when PATH exists on
    python3 test/files_passed.py --count WAY OUT.* ...           print the files on a way, over traces of some processes
"""

import atexit
import json
import os
import runpy
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

PACKAGE = "/dysl_vla_ros/"
ENOUGH = 50  # calls of one function from one place: what comes later is of the same types
LOOKED_AT = 6  # elements of a container
PERIOD = 0.25  # s between two looks at whether to begin, and two writings

Crossing = tuple[str, str, str]  # file that gives, file that takes ("": a library), name of the type


@dataclass(frozen=True)
class Way:
    """A way through the package.

    Attributes:
        things: names of types.
        ends: files that need not give anything out, as (part of) their names: there the thing has its effect.
    """

    things: frozenset[str]
    ends: tuple[str, ...] = ()


WAYS = {
    # An image, from the subscription's callback to the published twist.
    "image": Way(
        frozenset(
            ("Image", "CompressedImage", "Heard", "Verdict", "ndarray[uint8,3]", "Taken", "Moment", "Observation")
            + ("StepRequest", "Step", "Tensor[4]", "Tensor[3]", "Skip", "StackResult", "ResumePoint")
            + ("StepResult", "Answer", "StepReply", "ActionChunk", "ndarray[float32,2]", "ndarray[float32,3]")
            + ("ndarray[float32,1]", "LimitedMotion", "ndarray[float64,1]", "Command", "TwistStamped")
        )
    ),
    # `guidance.step`, from `ros2 param set` to where guidance takes it.
    "parameter": Way(
        frozenset(("Parameter", "Settings", "RuntimeSettings", "GuidanceSettings", "StepRequest", "Step")),
        ("skipping/guidance.py",),
    ),
    # `dysl_vla distill`, from its arguments to the DySL folder.
    "distill": Way(
        frozenset(
            ("Namespace", "DistillSettings", "DataSettings", "ModuleSettings", "DistillationSettings", "Choice")
            + ("ChosenLayers", "LayerPartition", "Moment", "Observation", "RecordedData", "_Bags", "Activations")
            + ("Batch", "InitialWeights", "Beginning", "DyslModules", "SkipAdapter", "SkipController", "Summary")
            + ("Distillation", "Decided", "Judgement", "Resume", "Unfinished", "Distilled")
        ),
        ("runtime/folder.py",),
    ),
}


def kinds(value: Any, inside: bool = True) -> set[str]:
    """Return the names of a value's type and, of a container, of its elements' types."""
    name = type(value).__name__
    if name == "ndarray":
        return {f"ndarray[{value.dtype},{value.ndim}]"}
    if name in ("Tensor", "Parameter") and hasattr(value, "dim"):
        return {f"Tensor[{value.dim()}]"}
    found = {name}
    if inside and isinstance(value, dict | list | tuple) and value:
        elements: Iterable[Any] = value.values() if isinstance(value, dict) else value
        for element in islice(elements, LOOKED_AT):
            found |= kinds(element, False)
    return found


def file_of(frame: FrameType) -> str | None:
    """Return the file of a function below the package, None where it is of a library."""
    name = frame.f_code.co_filename
    return name.rpartition(PACKAGE)[2] if PACKAGE in name and "/test/" not in name else None


class Tracer:
    """Notes what crosses from file to file."""

    def __init__(self, begin: Path | None) -> None:
        """Begin when ``begin`` exists; None: at once."""
        self.crossings: set[Crossing] = set()
        self.ran: set[str] = set()  # files of which a function ran
        self._counts: dict[Any, int] = {}
        self._begin, self._begun = begin, begin is None
        self._ended = threading.Event()

    def start(self) -> None:
        """Trace every thread that starts from now on."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if not self._begun or event not in ("call", "return"):  # first what is cheap: all that is imported comes here
            return
        code = frame.f_code
        own = file_of(frame)
        if own is None and not (code.co_name == "publish" and code.co_filename.endswith("rclpy/publisher.py")):
            return
        if own and code.co_name != "<module>":
            self.ran.add(own)
        caller = frame.f_back
        while caller is not None and file_of(caller) is None:
            caller = caller.f_back
        key = (code, event, caller and caller.f_code)
        self._counts[key] = self._counts.get(key, 0) + 1
        if self._counts[key] > ENOUGH:
            return
        other = (file_of(caller) or "") if caller else ""
        if event == "call":
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
            values = [frame.f_locals[name] for name in names if name not in ("self", "cls") and name in frame.f_locals]
            giver, taker = other, own or ""
        else:
            values, giver, taker = [argument], own or "", other
        if giver != taker:
            self.crossings |= {(giver, taker, name) for value in values for name in kinds(value)}

    def keep_writing(self, out: Path) -> None:
        """Write what was noted, again and again until the process ends."""

        def write() -> None:
            noted = {"crossings": sorted(self.crossings.copy()), "ran": sorted(self.ran.copy())}
            part = out.with_name(f"{out.name}.part")
            part.write_text(json.dumps(noted), encoding="utf-8")
            os.replace(part, out)

        def repeat() -> None:
            while not self._ended.wait(PERIOD):
                if self._begin is None or self._begin.exists():
                    self._begun = True
                write()

        writer = threading.Thread(target=repeat, daemon=True)
        writer.start()

        def end() -> None:
            sys.setprofile(None)
            self._ended.set()
            writer.join()
            write()

        atexit.register(end)


def files_on(way: Way, traces: Iterable[Path]) -> list[str]:
    """Return the files that a way passes, over traces of some processes."""
    crossings: list[Crossing] = [tuple(own) for trace in traces for own in _read(trace)["crossings"]]
    takers = {taker for _, taker, name in crossings if name in way.things and taker}
    givers = {giver for giver, _, name in crossings if name in way.things}
    return sorted(own for own in takers if own in givers or own in way.ends)


def files_that_ran(traces: Iterable[Path]) -> list[str]:
    """Return the files of which any function ran; generated messages are not counted."""
    return sorted({own for trace in traces for own in _read(trace)["ran"] if not own.startswith(("msg/", "srv/"))})


def _read(trace: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(trace.read_text(encoding="utf-8"))
    return found


def run_traced(out: Path, begin: Path | None, program: list[str]) -> None:
    """Run ``-m MODULE`` or a file with arguments in this process and write what crosses to ``OUT.<process id>``."""
    tracer = Tracer(begin)
    tracer.keep_writing(out.with_name(f"{out.name}.{os.getpid()}"))
    tracer.start()
    if program[0] == "-m":
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[0] == "--count":
        traces = [Path(path) for path in given[2:]]
        files, ran = files_on(WAYS[given[1]], traces), files_that_ran(traces)
        print(f"{len(files)} files on the way, {len(ran)} ran", *files, sep="\n")
    else:
        start = Path(given[1]) if given[0] == "--from" else None
        given = given[2:] if start else given
        sys.path.pop(0)  # ours; the program's own place comes in front
        run_traced(Path(given[0]), start, given[1:])

"""Borders that fail to order: the real node and the real worker, in whose process one call raises.

A *border* is a call from one part of this package into another part or into anything else: rclpy, messages, numpy,
torch, the system. Nobody lists them: a profile function sees every call of the process, notes the borders that are
crossed (:meth:`FailingBorders.record`), and raises in place of the one that is ordered (:meth:`FailingBorders.fail`),
once, as if the call itself had raised. What is no border is told by :data:`INTERPRETER` and :func:`reads_a_field`.

Run as a program it is ``vla_node`` (``FailingBorders.program``), or what starts its workers (``FailingBorders.python``,
:mod:`warm_worker`), whose borders count from their first line on.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import warm_worker
from warm_worker import WarmWorkers

POLL = 0.01  # s between two looks at the order
PACKAGE = "dysl_vla_ros"

# What holds our own code together, as taking a lock does, and how a failure is told: no Python program goes on without.
INTERPRETER = frozenset(
    ["_abc", "_collections", "_contextvars", "_functools", "_operator", "_struct", "_thread", "_weakref"]
    + ["_weakrefset", "abc"]  # a callback of a weak reference raises to nobody
    + ["builtins", "codecs", "collections", "concurrent", "contextlib", "contextvars", "copy", "dataclasses", "enum"]
    + ["functools", "importlib", "inspect", "itertools", "linecache", "logging", "operator", "queue", "re"]
    + ["selectors", "sys", "threading", "time", "tokenize", "traceback", "types", "typing", "warnings", "weakref"]
)


def part_of_file(name: str) -> str:
    """Return which part a source file belongs to: ``dysl_vla_ros/nodes``, ``rclpy``, ``socket``; "": none."""
    if name.startswith("<"):
        return ""
    parts = Path(name).parts
    if PACKAGE in parts:
        below = parts[len(parts) - 1 - parts[::-1].index(PACKAGE) + 1 :]
        if below[0] in ("msg", "srv"):
            return "messages"
        return f"{PACKAGE}/{below[0].removesuffix('.py')}"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1].removesuffix(".py")
    for number, each in enumerate(parts):
        if each.startswith("python3."):
            return parts[number + 1].removesuffix(".py")
    return ""


def part_of_c(function: Any) -> str:
    """Return the module of a function that is not written in Python; "" for methods of the built-in types."""
    owner = getattr(function, "__self__", None)
    module = getattr(function, "__module__", None)
    if not module and owner is not None:
        module = (owner if isinstance(owner, type) else type(owner)).__module__
    return (module or "").partition(".")[0]


def reads_a_field(part: str, name: str) -> bool:
    """Whether a call is none in the source: a field of a message, an attribute of a module, numpy's own dispatch."""
    last = name.rpartition(".")[2]
    if part == "messages" or part.endswith(("_msgs", "_interfaces")):
        return last != "__init__"
    return last in ("__getattr__", "__getattribute__", "__del__") or part == "numpy" and last.startswith("_")


class Borders:
    """The borders of this process; installed before anything of the package is imported."""

    def __init__(self, folder: Path, who: str) -> None:
        self._folder, self._who = folder, who
        self._parts: dict[CodeType, str] = {}
        self._sites: dict[Any, str] = {}
        self._recording = False
        self._recorded: dict[str, int] = {}  # how often, in the order in which they were crossed first
        self._told: dict[str, int] = {}
        self._armed = ""
        self._spared = 0  # crossings of the armed border that go well before it fails
        self._within: frozenset[str] = frozenset()  # functions; a border counts below one of them, "": everywhere

    def install(self) -> None:
        """Obey the order that is there, and from now on each that comes."""
        text = self._look("")
        threading.Thread(target=self._obey, args=[text], daemon=True).start()
        atexit.register(self._tell_sites)
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _obey(self, text: str) -> None:
        while True:
            text = self._look(text)
            self._tell_sites()
            time.sleep(POLL)

    def _tell_sites(self) -> None:
        if self._recording and self._recorded != self._told:
            self._told = dict(self._recorded)
            self._tell("sites", self._told)

    def _look(self, before: str) -> str:
        """Look at the order, and take it where it is a new one."""
        text = (self._folder / "order.json").read_text()
        if text != before:
            given = json.loads(text)
            mine = given["who"] == self._who
            self._within = frozenset(given.get("within", ()))
            self._spared = given["spared"]
            self._armed = given["site"] if mine and given["mode"] == "fail" else ""
            self._recorded, self._told = {}, {}
            self._recording = mine and given["mode"] == "record"
            self._tell("obeyed", given["number"])
        return text

    def _tell(self, name: str, value: Any) -> None:
        file = self._folder / f"{name}_{self._who}.json"
        file.with_suffix(".new").write_text(json.dumps(value))
        file.with_suffix(".new").rename(file)

    def _part(self, code: CodeType) -> str:
        part = self._parts.get(code)
        if part is None:
            part = self._parts[code] = part_of_file(code.co_filename)
        return part

    def _profile(self, frame: FrameType, event: str, arg: Any) -> None:
        if event == "call":
            caller = frame.f_back
            if caller is None or not self._part(caller.f_code).startswith(PACKAGE):
                return
            called: Any = frame.f_code
        elif event == "c_call":
            caller = frame
            if not self._part(caller.f_code).startswith(PACKAGE):
                return
            called = arg.__name__
        else:
            return
        key = (caller.f_code, caller.f_lineno, called)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = self._site(caller, called, arg)
        if not site or not (self._recording or site == self._armed) or not self._counts(caller):
            return
        if self._recording:
            self._recorded[site] = self._recorded.get(site, 0) + 1
        elif self._spared:
            self._spared -= 1
        else:
            self._armed = ""
            self._tell("fired", site)  # at once: it may be what ends this process
            sys.settrace(self._rearm)  # an exception takes the profile function off this thread
            raise RuntimeError(f"a fault to order: {site}")

    def _counts(self, caller: FrameType | None) -> bool:
        if not self._within:
            return True
        while caller is not None:
            if caller.f_code.co_name in self._within and self._part(caller.f_code).startswith(PACKAGE):
                return True
            caller = caller.f_back
        return False

    def _rearm(self, frame: FrameType, event: str, arg: Any) -> None:
        sys.settrace(None)
        sys.setprofile(self._profile)

    def _site(self, caller: FrameType, called: Any, arg: Any) -> str:
        ours = self._part(caller.f_code)
        if isinstance(called, CodeType):
            theirs, name = self._part(called), called.co_qualname if hasattr(called, "co_qualname") else called.co_name
        else:
            theirs, name = part_of_c(arg), called
        if not theirs or theirs == ours or theirs in INTERPRETER or reads_a_field(theirs, name):
            return ""
        code = caller.f_code
        place = getattr(code, "co_qualname", code.co_name)
        module = f"{ours.removeprefix(PACKAGE + '/')}.{Path(code.co_filename).stem}"
        return f"{module}.{place}:{caller.f_lineno} -> {theirs}.{name}"


class FailingBorders:
    """What a test orders, and what it is told; ``who`` is ``node`` or ``worker``. :meth:`close` it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "borders"
        self._folder.mkdir(parents=True)
        self._number = 0
        self._order("off")
        here = str(Path(__file__).resolve())
        script = self._folder / "vla_node"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{here}" node "{self._folder}" "$@"\n')
        script.chmod(0o755)
        self.program = str(script)
        self.workers = WarmWorkers(self._folder, [here, "workers", str(self._folder)])
        self.python = self.workers.python

    def close(self) -> None:
        """End what starts the workers."""
        self.workers.close()

    def _order(self, mode: str, who: str = "", site: str = "", within: Sequence[str] = (), spared: int = 0) -> None:
        self._number += 1
        for name in ("sites", "fired") if mode != "off" else ():
            (self._folder / f"{name}_{who}.json").unlink(missing_ok=True)
        written = self._folder / "order.new"
        order = {"mode": mode, "who": who, "site": site, "within": list(within), "spared": spared}
        written.write_text(json.dumps(order | {"number": self._number}))
        os.replace(written, self._folder / "order.json")

    def record(self, who: str, within: Sequence[str] = ()) -> None:
        """Note every border that is crossed from now on; ``within``: below functions of these names alone."""
        self._order("record", who, within=within)

    def fail(self, who: str, site: str, within: Sequence[str] = (), spared: int = 0) -> None:
        """Let a call over this border raise: the next one after ``spared`` that go well."""
        self._order("fail", who, site, within, spared)

    def off(self) -> None:
        """Leave everything as it is."""
        self._order("off")

    def _read(self, name: str, who: str) -> Any:
        file = self._folder / f"{name}_{who}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def obeyed(self, who: str) -> bool:
        """Whether the process acts on the newest order."""
        return bool(self._read("obeyed", who) == self._number)

    def recorded(self, who: str) -> dict[str, int]:
        """Return how often each border was crossed since the order to record, in the order of their first crossings."""
        return dict(self._read("sites", who) or {})

    def fired(self, who: str) -> bool:
        """Whether the ordered call has raised."""
        return self._read("fired", who) is not None


def main() -> None:
    what, folder = sys.argv[1:3]
    sys.argv[:3] = [what]
    if what == "workers":
        warm_worker.serve(sys.argv[1], Borders(Path(folder), "worker").install)
        return
    from dysl_vla_ros import stop_signals

    stop_signals.end_at_once()
    from dysl_vla_ros.nodes.vla_node import main as run

    Borders(Path(folder), "node").install()
    sys.exit(run())


if __name__ == "__main__":
    main()

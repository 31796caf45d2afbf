"""A worker with faults to order: the real interpreter, the real policy, and a prelude that spoils its steps.

Production code knows nothing of it: ``FaultyWorker(folder).python`` goes where ``model.python`` goes. The fault may be
changed while the worker runs::

    faulty = FaultyWorker(tmp_path)
    client = WorkerClient(WorkerSpec(..., python=faulty.python), ...)
    client.start()
    faulty.set("delay", seconds=0.5)   # or raise, nan, kill, hang, none; see MODES
"""

import json
import os
import sys
from pathlib import Path

from waiting import wait_until

MODES = {
    "none": "nothing",
    "delay": "wait `seconds` in prepare, without the interpreter's lock",
    "raise": "prepare raises RuntimeError(`text`)",
    "refuse": "prepare raises ObservationError(`text`), as a policy does that cannot use what it sees",
    "nan": "decode gives NaN actions",
    "sway": "decode gives actions moved to one side on every axis, and to the other in the next step",
    "kill": "the worker kills itself in prepare (SIGKILL)",
    "hang": "prepare never returns; `lock`: true holds the interpreter's lock (a C call), so that no thread runs",
    "chatter": "prepare prints `lines` lines of 100 characters",
    "exit_at_start": "ends before a word, with exit code `code`, after writing `text` to stderr",
    "hang_at_start": "never says hello",
    "hang_up_at_start": "hangs up before a word, and lives on",
    "garbage_at_start": "says what is no message",
    "version_at_start": "says hello as version `package`",
}

PRELUDE = """
import ctypes, json, os, runpy, signal, sys, time
from pathlib import Path

folder = Path(__file__).parent


def order():
    value = json.loads((folder / "fault.json").read_text())
    left = value.get("times")
    if left is not None:
        if left <= 0:
            return {"mode": "none"}
        value["times"] = left - 1
        (folder / "fault.new").write_text(json.dumps(value))
        (folder / "fault.new").rename(folder / "fault.json")
    return value


def note(event):
    with (folder / "events").open("a") as events:
        events.write(event + "\\n")


def spoil(policy):
    prepare, decode, check = policy.prepare, policy.decode, policy.check_instruction
    state = {"mode": "none", "side": 1.0}

    def spoiled_prepare(*arguments, **options):
        note("prepare")
        fault = order()
        mode = fault["mode"]
        state["mode"], state["side"] = mode, -state["side"]
        if mode == "delay":
            time.sleep(fault["seconds"])
        elif mode == "raise":
            raise RuntimeError(fault.get("text", "a fault to order"))
        elif mode == "refuse":
            from dysl_vla_ros.errors import ObservationError

            raise ObservationError(fault["text"])
        elif mode == "chatter":
            for number in range(fault["lines"]):
                print(f"{number:08d} " + "x" * 91)
            sys.stdout.flush()
        elif mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif mode == "hang":
            if fault.get("lock"):
                ctypes.PyDLL(None).sleep(1 << 20)  # PyDLL: the call keeps the lock
            while True:
                time.sleep(1 << 20)
        return prepare(*arguments, **options)

    def spoiled_decode(*arguments, **options):
        actions, new_state = decode(*arguments, **options)
        if state["mode"] == "nan":
            actions = actions * float("nan")
        elif state["mode"] == "sway":
            actions = actions + state["side"]  # normalised: about a spread of the policy's own actions
        return actions, new_state

    def noted_check(instruction):
        note("check")
        return check(instruction)

    policy.prepare, policy.decode, policy.check_instruction = spoiled_prepare, spoiled_decode, noted_check
    return policy


def load_spoiled(load):
    return lambda *arguments, **options: spoil(load(*arguments, **options))


(folder / "environment.json").write_text(json.dumps(dict(os.environ)))
start = json.loads((folder / "fault.json").read_text())
if start["mode"] == "exit_at_start":
    print(start.get("text", "a fault to order"), file=sys.stderr)
    sys.exit(start.get("code", 1))
if start["mode"] == "hang_at_start":
    time.sleep(1 << 20)
if start["mode"] in ("garbage_at_start", "hang_up_at_start"):
    (stream,) = [int(word.partition("=")[2]) for word in sys.argv if word.startswith("--stream=")]
    if start["mode"] == "garbage_at_start":
        os.write(stream, b"\\xff" * 64)
    else:
        os.close(stream)
    time.sleep(1 << 20)
import dysl_vla_ros

if start["mode"] == "version_at_start":
    dysl_vla_ros.__version__ = start["package"]
from dysl_vla_ros.policies import registry

usual = registry.load_policy
for module in [registry, *sys.modules.values()]:  # a warm interpreter has imported what has it by name
    if getattr(module, "__dict__", {}).get("load_policy") is usual:  # not asked for: that makes lazy modules import
        module.load_policy = load_spoiled(usual)
assert sys.argv[1] == "-m", sys.argv
module = sys.argv[2]
sys.argv[:3] = [module]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


class FaultyWorker:
    """An interpreter whose worker has the fault that was last ``set``."""

    def __init__(self, folder: Path, python: str = sys.executable) -> None:
        self._folder = folder / "faulty_worker"
        self._folder.mkdir(parents=True)
        (self._folder / "prelude.py").write_text(PRELUDE)
        script = self._folder / "python"
        script.write_text(f'#!/bin/sh\nexec "{python}" "{self._folder / "prelude.py"}" "$@"\n')
        script.chmod(0o755)
        self.python = str(script)
        self.set("none")

    def set(self, mode: str, **options: object) -> None:
        """Order a fault from the next step on, ``times=n``: for n steps; modes ``*_at_start``: at the next start."""
        assert mode in MODES, f"{mode}: there are {', '.join(MODES)}"
        written = self._folder / "order.new"
        written.write_text(json.dumps({"mode": mode, **options}))
        os.replace(written, self._folder / "fault.json")

    def begin(self, limit: float, mode: str, **options: object) -> None:
        """Order a fault and wait until a step with it has begun."""
        self.set(mode, **options)
        before = self.steps_begun
        wait_until(lambda: self.steps_begun > before + 1, limit, f"a step with {mode}")

    @property
    def steps_begun(self) -> int:
        """Calls of the policy's prepare so far, those of the warm-up included; counted before the fault acts."""
        return self._events("prepare")

    @property
    def instructions_checked(self) -> int:
        """Calls of the policy's check_instruction so far."""
        return self._events("check")

    def _events(self, kind: str) -> int:
        events = self._folder / "events"
        return events.read_text().splitlines().count(kind) if events.exists() else 0

    def environment(self) -> dict[str, str]:
        """Return the environment that the worker saw at its last start."""
        return dict(json.loads((self._folder / "environment.json").read_text()))

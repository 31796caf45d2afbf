"""A program off a warm interpreter is the one that is started as usual: what it is given, does, says and ends as."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import install_prefix
from waiting import wait_until
from warm_program import USUAL, WarmProcess, imports_of, run, start

LIMIT = 60.0  # s
CHEAP = ("json",)  # an interpreter that is made in a moment
TELLS = """
import json, os, sys
print("to stderr", file=sys.stderr)
print(json.dumps({
    "arguments": sys.argv, "first on the path": sys.path[0], "folder": os.getcwd(), "name": __name__,
    "environment": dict(os.environ), "parent": os.getppid(), "session": os.getsid(0) == os.getpid(),
    "group": os.getpgrp() == os.getpid() or os.getpgrp(), "input": sys.stdin.read(),
    "descriptors": sorted(set(os.listdir("/proc/self/fd")) - {"3"}), "executable": sys.executable,
    "streams": [[each.encoding, each.errors, each.line_buffering, each.isatty()] for each in (sys.stdout, sys.stderr)],
    "main": sys.modules["__main__"].__file__, "threads": len(os.listdir("/proc/self/task")),
}))
"""


def written(folder: Path, code: str) -> str:
    path = folder / "program.py"
    path.write_text(code)
    return str(path)


def both(code: str, folder: Path, *arguments: str, **options: Any) -> "list[subprocess.CompletedProcess[str]]":
    """Run a program warm and as usual."""
    command = [sys.executable, written(folder, code), *arguments]
    pipes = {"capture_output": True, "text": True, "cwd": folder}
    return [run(command, LIMIT, warm=warm, imports=CHEAP, **pipes, **options) for warm in (True, False)]


@pytest.mark.parametrize("session", [True, False])
@pytest.mark.parametrize("unbuffered", ["1", ""])
def test_it_is_given_what_a_started_one_is(session: bool, unbuffered: str, tmp_path: Path) -> None:
    environment = os.environ | {"ROS_DOMAIN_ID": "77", "COLUMNS": "60", "PYTHONUNBUFFERED": unbuffered}
    given: dict[str, Any] = {"cwd": tmp_path, "start_new_session": session, "env": environment}
    with (tmp_path / "input").open("w+") as source:
        source.write("some lines\n")
        source.flush()
        found = []
        for warm in (True, False):
            source.seek(0)
            command = [sys.executable, written(tmp_path, TELLS), "--an", "argument with spaces \u00fc"]
            pipes = {"stdin": source, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
            with start(command, warm, CHEAP, **pipes, **given) as process:
                assert isinstance(process, WarmProcess) == warm
                output, errors = process.communicate(timeout=LIMIT)
            found.append({**json.loads(output), "exit code": process.returncode, "errors": errors})
    warm, usual = found
    assert {name: (warm[name], usual[name]) for name in usual if warm[name] != usual[name]} == {}
    assert (warm["exit code"], warm["parent"], warm["input"]) == (0, os.getpid(), "some lines\n")


@pytest.mark.parametrize(
    "end",
    [
        "print('unflushed')",
        "import sys; sys.exit(3)",
        "import sys; sys.exit('why')",
        "import os; os._exit(4)",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import os; os.abort()",
        "import atexit; atexit.register(print, 'at the end')",
        "import threading; threading.Timer(0.2, print, ['from a thread']).start()",
        "import sys; sys.stdout = None; sys.exit(5)",
        "open('/dev/full', 'w').write('x')",
        "import os; os.close(1); print('to nobody')",
        "raise KeyboardInterrupt",
    ],
)
def test_it_ends_as_a_started_one_does(end: str, tmp_path: Path) -> None:
    warm, usual = both(end, tmp_path)
    assert (warm.returncode, warm.stdout) == (usual.returncode, usual.stdout)
    assert warm.stderr.splitlines()[-1:] == usual.stderr.splitlines()[-1:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_its_own(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, written(tmp_path, "print('here', flush=True)\nimport time\ntime.sleep(60)\n")]
    with start(command, imports=CHEAP, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout and process.stdout.readline() == b"here\n"
        process.send_signal(number)
        assert process.wait(LIMIT) == -number
    with start(command, imports=CHEAP, stdout=subprocess.PIPE) as another:
        assert another.stdout and another.stdout.readline() == b"here\n", "the interpreter lives on"
        another.kill()


def test_a_program_that_does_not_end_in_time_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, written(tmp_path, "open('pid', 'w').write(str(__import__('os').getpid()))\ninput()")]
    read, write = os.pipe()
    with pytest.raises(subprocess.TimeoutExpired):
        run(command, 0.5, imports=CHEAP, stdin=read, cwd=tmp_path)
    os.close(write)
    os.close(read)
    wait_until(lambda: not Path("/proc", (tmp_path / "pid").read_text()).exists(), LIMIT, "its end")


@pytest.mark.parametrize("name", ["PYTHONPATH", "LD_PRELOAD", "MUJOCO_GL", "PATH", "HOME", "RMW_IMPLEMENTATION"])
def test_an_environment_that_is_read_at_the_start_alone_asks_for_a_start(name: str, tmp_path: Path) -> None:
    command = [sys.executable, written(tmp_path, "")]
    for environment in (os.environ | {name: str(tmp_path)}, {"PATH": os.environ["PATH"]}):
        with start(command, imports=CHEAP, env=environment, stderr=subprocess.DEVNULL) as process:
            assert not isinstance(process, WarmProcess)


def test_an_option_that_a_fork_cannot_honour_asks_for_a_start(tmp_path: Path) -> None:
    read, write = os.pipe()
    with start(
        [sys.executable, written(tmp_path, f"__import__('os').write({write}, b'x')")], imports=CHEAP, pass_fds=[write]
    ):
        os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)


def test_as_long_as_no_test_changes_the_environment_a_start_is_a_warm_one(tmp_path: Path) -> None:
    """Libraries that are imported change it: where one more does, every start takes as long as usual, unnoticed."""
    with start([sys.executable, written(tmp_path, "")], imports=CHEAP) as process:
        assert isinstance(process, WarmProcess), {name for name in os.environ if os.environ[name] != USUAL.get(name)}


@pytest.mark.ros
def test_interpreters_are_known_by_the_program() -> None:
    programs = install_prefix() / "lib" / "dysl_vla_ros"
    verb = str(install_prefix() / "bin" / "dysl_vla")
    for command in (
        [programs / "vla_node"],
        [programs / "sim_node"],
        [verb, "inspect", "x"],
        [verb, "-q", "monitor"],
    ):
        assert imports_of(command), command
    for command in ([verb, "--help"], ["sh", "-c", "exit"], ["vla_node"], [sys.executable, "-c", "pass"]):
        assert imports_of(command) is None, command

"""The policy worker as a process: real interpreters, real signals. Faults are made by ``faulty_worker``."""

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dysl_vla_ros import __version__
from dysl_vla_ros.errors import ObservationError, WorkerError
from dysl_vla_ros.interfaces import THE_INSTRUCTION, THE_MODEL, THE_OBSERVATION, Observation, PolicyDescription
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ModelSettings, RuntimeSettings
from dysl_vla_ros.worker.client import StepReply, StepRequest, WorkerClient, WorkerSpec
from dysl_vla_ros.worker.messages import PROTOCOL, Hello, Load, encode, memory_file, receive
from dysl_vla_ros.worker.process import compute_threads
from faulty_worker import FaultyWorker
from harness import ProcessId, descendants, is_alive, wait_until
from machine import assert_in_time
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint

LOAD = 120.0  # s; torch and transformers are imported, on a machine that may be busy
STEP = 20.0  # s


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_checkpoint(tmp_path_factory.mktemp("worker") / "tiny")


class Worker:
    """A client whose callbacks are recorded, and the faults to order."""

    def __init__(self, folder: Path, checkpoint: Path | str, **changes: object) -> None:
        self.faulty = FaultyWorker(folder)
        spec = WorkerSpec(str(checkpoint), threads=1, python=self.faulty.python, load_timeout=LOAD)
        self.replies: list[StepReply] = []
        self.lost: list[tuple[str, float]] = []
        self.on_reply = self.replies.append
        self.client = WorkerClient(
            dataclasses.replace(spec, **changes),  # type: ignore[arg-type]
            lambda reply: self.on_reply(reply),
            lambda why: self.lost.append((why, time.monotonic())),
        )
        self.description: PolicyDescription | None = None
        self.sequence = 0

    def request(self, **changes: object) -> StepRequest:
        self.sequence += 1
        usual = StepRequest(0, self.sequence, observation(), no_actions(), (), 0, RuntimeSettings())
        return dataclasses.replace(usual, **changes)  # type: ignore[arg-type]

    def step(self, **changes: object) -> StepReply:
        before = len(self.replies)
        self.client.submit(self.request(**changes))
        wait_until(lambda: len(self.replies) > before or self.lost, STEP, "the reply to a step")
        assert not self.lost, self.lost
        return self.replies[-1]

    def begin_step(self) -> None:
        """Submit a request and wait until the policy computes it."""
        before = self.faulty.steps_begun
        self.client.submit(self.request())
        wait_until(lambda: self.faulty.steps_begun > before, STEP, "the beginning of a step")


@contextlib.contextmanager
def started(folder: Path, checkpoint: Path) -> Iterator[Worker]:
    worker = Worker(folder, checkpoint)
    try:
        worker.description = worker.client.start()
        yield worker
    finally:
        worker.client.close()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path) -> Iterator[Worker]:
    """One worker for all tests that leave it alive."""
    with pytest.MonkeyPatch.context() as environment:
        for name in ("LD_LIBRARY_PATH", "PYTHONPATH", "AMENT_PREFIX_PATH", "ROS_DOMAIN_ID", "PYTHONHOME_OF_ROS"):
            environment.setenv(name, f"{os.environ.get(name, '')}:/leaked")
        with started(tmp_path_factory.mktemp("shared"), checkpoint) as worker:
            yield worker


@pytest.fixture
def worker(shared: Worker) -> Iterator[Worker]:
    shared.faulty.set("none")
    yield shared
    shared.faulty.set("none")
    shared.on_reply = shared.replies.append
    wait_until(lambda: not shared.client.busy, STEP, "an idle worker")


def observation(seed: int = 0, **images: np.ndarray) -> Observation:
    random = np.random.default_rng(seed)
    pictures = {camera: random.integers(0, 256, (48, 64, 3), np.uint8) for camera in ("image", "wrist_image")}
    return Observation(pictures | images, random.normal(size=4).astype(np.float32), INSTRUCTION)


def no_actions() -> np.ndarray:
    return np.zeros((0, 4), np.float32)


# A worker that works


def test_the_description_is_that_of_the_runtime(worker: Worker, checkpoint: Path) -> None:
    assert replace(worker.description, floor_ms=0.0) == Runtime.load(str(checkpoint), "").description
    assert worker.description.floor_ms > 0.0, "measured while warming up"


def test_a_step_gives_what_the_runtime_gives_bit_for_bit(worker: Worker, checkpoint: Path) -> None:
    runtime = Runtime.load(str(checkpoint), "", threads=1)
    played = no_actions()
    for number, episode in enumerate([51, 51, 51, 52, 52]):
        if number == 3:
            runtime.reset()
            played = no_actions()
        moment, gaps = observation(number), {2: (0,), 4: (1, 2)}.get(number, ())
        ours = worker.step(episode=episode, observation=moment, played=played, gaps=gaps, first_index=number % 2).result
        theirs = runtime.step(moment, played, RuntimeSettings(), gaps=gaps, first_index=number % 2)
        assert ours is not None
        assert ours.chunk.actions.tobytes() == theirs.chunk.actions.tobytes()
        assert repr(ours.trace) == repr(theirs.trace)  # repr: NaN is equal to itself there
        played = theirs.chunk.actions[:2]


def test_frames_of_any_strides_and_changing_sizes_arrive_as_they_look(worker: Worker) -> None:
    padded = np.random.default_rng(3).integers(0, 256, (60, 100, 3), np.uint8)[::-1, 7:90, ::-1]
    straight = worker.step(observation=observation(1, image=np.ascontiguousarray(padded))).result
    strided = worker.step(observation=observation(1, image=padded)).result
    assert straight is not None and strided is not None
    assert strided.chunk.actions.tobytes() == straight.chunk.actions.tobytes()


def test_a_reply_names_its_request_and_says_what_the_way_cost(worker: Worker) -> None:
    before = time.monotonic()
    reply = worker.step(episode=9)
    assert (reply.episode, reply.sequence, reply.error) == (9, worker.sequence, "")
    assert reply.result is not None
    assert reply.result.timings.transfer == reply.transfer_ms
    assert 0.0 < reply.transfer_ms <= (time.monotonic() - before) * 1000 - reply.result.timings.total


def test_one_request_is_in_flight(worker: Worker) -> None:
    assert (worker.client.busy, worker.client.busy_for()) == (False, 0.0)
    worker.faulty.set("delay", seconds=0.3)
    worker.begin_step()
    assert worker.client.busy
    first, second = worker.client.busy_for(), worker.client.busy_for()
    assert 0.0 < first < second
    with pytest.raises(WorkerError, match=f"still computes request {worker.sequence}"):
        worker.client.submit(worker.request())


def test_the_next_request_may_be_sent_from_the_callback(worker: Worker) -> None:
    second: list[StepReply] = []

    def on_reply(reply: StepReply) -> None:
        assert not worker.client.busy
        worker.on_reply = second.append
        worker.client.submit(worker.request())

    worker.on_reply = on_reply
    worker.client.submit(worker.request())
    wait_until(lambda: second, STEP, "the reply to the second request")


def test_a_failing_callback_is_told_in_place_of_the_answer_then_logged_and_the_worker_goes_on(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    def on_reply(reply: StepReply) -> None:
        worker.replies.append(reply)
        if reply.error:
            worker.on_reply = worker.replies.append
        raise KeyError("our own mistake")

    worker.on_reply = on_reply
    worker.client.submit(worker.request())
    wait_until(lambda: "our own mistake" in caplog.text, STEP, "the log of a failing callback")
    answer, told = worker.replies[-2:]
    assert answer.result is not None and told.result is None and "KeyError: 'our own mistake'" in told.error
    assert (told.episode, told.sequence, told.at_fault) == (answer.episode, answer.sequence, THE_MODEL)
    assert worker.step().error == ""


@pytest.mark.parametrize(
    ("mode", "options", "error"),
    [
        ("raise", {"text": "out of luck"}, r"^unexpected: RuntimeError: out of luck$"),
        ("nan", {}, "returned NaN or infinity"),
    ],
)
def test_a_step_that_fails_is_told_and_the_worker_lives_on(worker: Worker, mode: str, options, error: str) -> None:
    pid = worker.client.pid
    worker.faulty.set(mode, times=1, **options)
    reply = worker.step()
    assert reply.result is None and reply.at_fault == THE_MODEL
    with pytest.raises(WorkerError, match=error):
        raise WorkerError(reply.error)
    assert worker.step().result is not None
    assert worker.client.pid == pid


def test_the_policys_own_reason_comes_as_it_is(worker: Worker) -> None:
    reply = worker.step(observation=dataclasses.replace(observation(), instruction="xylophone"))
    assert reply.result is None
    assert "unexpected" not in reply.error
    assert "xylophone" in reply.error


def said(text: str) -> Observation:
    return dataclasses.replace(observation(), instruction=text)


def test_a_refused_instruction_is_told_from_refused_values_and_costs_no_picture(worker: Worker) -> None:
    begun = worker.faulty.steps_begun
    assert worker.step(episode=61, observation=said("xylophone")).at_fault == THE_INSTRUCTION
    assert worker.faulty.steps_begun == begun, "refused before the policy prepared anything"
    far = dataclasses.replace(observation(), proprioception=np.full(4, np.inf, np.float32))
    reply = worker.step(episode=62, observation=far)
    assert reply.at_fault == THE_OBSERVATION and "must be 4 finite values: ee.x" in reply.error
    good = worker.step(episode=63)
    assert good.result is not None and (good.at_fault, good.warnings) == ("", ())


def test_what_the_policy_warns_of_comes_with_the_first_step_of_an_episode(worker: Worker) -> None:
    replies = [worker.step(episode=episode, observation=said("push the sausage")) for episode in (71, 71, 72)]
    assert all(reply.result is not None for reply in replies)
    assert [len(reply.warnings) for reply in replies] == [1, 0, 1]
    assert replies[0].warnings[0].startswith("the policy does not know sausage; it was trained on: ")


def test_a_frame_that_cannot_be_sent_is_refused_by_name_and_nothing_is_in_flight(worker: Worker) -> None:
    with pytest.raises(ObservationError, match="camera 'wrist_image': expected"):
        worker.client.submit(worker.request(observation=observation(wrist_image=np.zeros((4, 4), np.uint8))))
    assert not worker.client.busy
    assert worker.step().error == ""


def test_too_long_an_instruction_is_refused_with_its_length(worker: Worker) -> None:
    long = dataclasses.replace(observation(), instruction="x" * 200_000)
    with pytest.raises(ObservationError, match="the instruction has 200000 characters"):
        worker.client.submit(worker.request(observation=long))
    assert worker.step().error == ""


def test_nothing_of_ros_reaches_the_worker(worker: Worker) -> None:
    seen = worker.faulty.environment()
    assert not [name for name, value in seen.items() if "/leaked" in value]
    assert not {"AMENT_PREFIX_PATH", "ROS_DOMAIN_ID"} & set(seen)
    assert seen["OMP_NUM_THREADS"] == "1"
    assert {name: seen.get(name) for name in ("PATH", "HOME")} == {n: os.environ.get(n) for n in ("PATH", "HOME")}
    assert "rclpy" not in Path(f"/proc/{worker.client.pid}/maps").read_text()


def test_the_folder_with_the_link_is_gone_once_the_worker_runs(worker: Worker) -> None:
    assert not Path(worker.faulty.environment()["PYTHONPATH"]).exists()
    assert os.readlink(f"/proc/{worker.client.pid}/cwd") == "/"


def test_a_worker_is_the_leader_of_its_own_session(worker: Worker) -> None:
    assert worker.client.pid is not None
    assert os.getsid(worker.client.pid) == worker.client.pid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_the_whole_group_or_service_leaves_the_worker_to_the_node(worker: Worker, number: int) -> None:
    pid = worker.client.pid
    assert pid is not None
    os.kill(pid, number)
    assert worker.step().error == ""


# Loss


def test_a_worker_killed_in_the_middle_of_a_step_is_told_once_within_a_second(tmp_path: Path, checkpoint: Path) -> None:
    with started(tmp_path, checkpoint) as worker:
        worker.faulty.set("hang")
        worker.begin_step()
        pid = worker.client.pid
        assert pid is not None
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: worker.lost, 5.0, "the loss of the worker")
        why, when = worker.lost[0]
        assert_in_time(killed, when, 0.0, 1.0, "the loss of the worker")
        assert why.startswith("the policy worker ended with signal 9 (SIGKILL")
        assert not Path(f"/proc/{pid}").exists()
        assert worker.client.pid is None
        with pytest.raises(WorkerError, match="signal 9"):
            worker.client.submit(worker.request())
        worker.client.close()
        assert (len(worker.lost), worker.replies) == (1, [])


@pytest.mark.parametrize(
    "lock",
    [pytest.param(False, id="hung", marks=pytest.mark.slow), pytest.param(True, id="hung with the interpreter's lock")],
)
def test_close_does_not_wait_for_a_step_and_leaves_no_process(tmp_path: Path, checkpoint: Path, lock: bool) -> None:
    with started(tmp_path, checkpoint) as worker:
        worker.faulty.set("hang", lock=lock)
        worker.begin_step()
        pid = worker.client.pid
        began = time.monotonic()
        worker.client.close()
        assert_in_time(began, time.monotonic(), 0.0, 1.0, "close")
        assert not Path(f"/proc/{pid}").exists()
        assert not worker.client._thread.is_alive()  # so that no callback can come
        assert (worker.replies, worker.lost) == ([], [])
        worker.client.close()
        with pytest.raises(WorkerError):
            worker.client.submit(worker.request())


def test_a_worker_ends_in_the_middle_of_a_step_when_the_node_hangs_up(tmp_path: Path, checkpoint: Path) -> None:
    faulty = FaultyWorker(tmp_path)
    faulty.set("hang")  # in the warm-up, which computes steps
    process, stream = bare_worker(faulty)
    with stream:
        assert receive(stream) == Hello(__version__, PROTOCOL, ".".join(map(str, sys.version_info[:3])))
        stream.sendall(encode(Load(str(checkpoint), "", "cpu", 1, "fresh", 0, "")))
        wait_until(lambda: faulty.steps_begun, LOAD, "the beginning of the warm-up")
    assert process.wait(5.0) == 0


def bare_worker(faulty: FaultyWorker, parent: int = 0) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """A worker process without a client."""
    ours, theirs = socket.socketpair()
    ours.settimeout(LOAD)
    frames = memory_file()
    package = Path(sys.modules["dysl_vla_ros"].__file__ or "").parent.parent
    with theirs:
        process = subprocess.Popen(
            [faulty.python, "-m", "dysl_vla_ros.worker", f"--stream={theirs.fileno()}", f"--frames={frames}",
             f"--parent={parent or os.getpid()}"],
            env={"PYTHONPATH": str(package), "PATH": os.environ["PATH"]}, pass_fds=(theirs.fileno(), frames),
            stderr=subprocess.PIPE,
        )  # fmt: skip
    os.close(frames)
    return process, ours


NODE = """
import os, signal, sys
from dysl_vla_ros.worker.client import WorkerClient, WorkerSpec
interrupts = []
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
client = WorkerClient(WorkerSpec(sys.argv[1], threads=1, load_timeout=float(sys.argv[2])), print, print)
client.start()
print("started", client.pid, flush=True)
while line := sys.stdin.readline():
    print("alive" if os.path.exists(f"/proc/{client.pid}") and client.pid else "lost", flush=True)
"""


def test_a_worker_survives_ctrl_c_and_not_the_node_even_where_it_is_stopped(checkpoint: Path) -> None:
    node = subprocess.Popen(
        [sys.executable, "-c", NODE, str(checkpoint), str(LOAD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
    )
    with node:
        try:
            assert node.stdin and node.stdout
            pid = int(line_of(node, LOAD).split()[1])
            (worker,) = [process for process in descendants(node.pid) if process.pid == pid]
            os.killpg(node.pid, signal.SIGINT)
            assert line_of(node, STEP) == "interrupted"
            node.stdin.write("\n")
            assert line_of(node, STEP) == "alive"
            assert is_alive(worker)
            os.kill(pid, signal.SIGSTOP)
            wait_until(lambda: state(worker) == "T", STEP, "a stopped worker")
        finally:
            node.kill()
        wait_until(lambda: not is_alive(worker), 5.0, "the end of the worker after its node")


def line_of(process: "subprocess.Popen[str]", limit: float) -> str:
    """Read one line of a process's output within ``limit``."""
    lines: list[str] = []
    assert process.stdout
    reader = threading.Thread(target=lambda: lines.append(process.stdout.readline()), daemon=True)  # type: ignore[union-attr]
    reader.start()
    wait_until(lambda: lines, limit, "a line of output")
    return lines[0].strip()


def state(process: ProcessId) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


# A start that fails


def refused(worker: Worker) -> str:
    with pytest.raises(WorkerError) as caught:
        worker.client.start()
    assert worker.client.pid is None
    assert not worker.client._thread.is_alive()
    assert (worker.replies, worker.lost) == ([], [])
    return str(caught.value)


def test_a_corrupt_checkpoint_is_told_with_the_policys_own_words(tmp_path: Path) -> None:
    broken = make_tiny_checkpoint(tmp_path / "broken")
    weights = next(broken.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    reason = refused(Worker(tmp_path, broken))
    assert weights.name in reason
    assert "unexpected" not in reason and "Traceback" not in reason


def test_a_worker_of_another_version_is_refused_with_both(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.faulty.set("version_at_start", package="0.0.1")
    reason = refused(worker)
    assert "dysl_vla_ros 0.0.1" in reason and f"this node has {__version__}" in reason


def test_what_is_no_message_is_refused_and_its_speaker_ended(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.faulty.set("garbage_at_start")
    assert "a message of 4294967295 bytes was announced" in refused(worker)


def test_a_worker_that_ends_before_a_word_is_told_with_its_last_lines(tmp_path: Path, capfd) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.faulty.set("exit_at_start", code=3, text="no such library: libcuda")
    assert refused(worker) == "the policy worker ended with exit code 3; its last lines: no such library: libcuda"
    assert "[policy worker] no such library: libcuda" in capfd.readouterr().err


def test_a_worker_that_hangs_up_and_lives_on_is_ended_and_not_called_killed_by_the_system(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.faulty.set("hang_up_at_start")
    assert refused(worker) == "the policy worker hung up and was ended"


def test_a_start_takes_no_longer_than_its_limit(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "some/checkpoint", load_timeout=1.0)
    worker.faulty.set("hang_at_start")
    began = time.monotonic()
    assert "loading some/checkpoint took longer than model.load_timeout (1 s)" in refused(worker)
    assert_in_time(began, time.monotonic(), 1.0, 2.0, "a start that is broken off")


@pytest.mark.parametrize("python", ["/no/such/python", "no-such-python", "/etc/passwd"])
def test_an_interpreter_that_cannot_be_started_is_named(tmp_path: Path, python: str) -> None:
    reason = refused(Worker(tmp_path, "nowhere", python=python))
    assert reason.startswith(f"model.python: cannot start '{python}': ")
    assert reason.endswith("name a Python interpreter")


def test_a_program_that_starts_an_interpreter_is_no_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "wrapper"
    script.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n')
    script.chmod(0o755)
    assert "model.python must be an interpreter" in refused(Worker(tmp_path, "nowhere", python=str(script)))


def test_close_ends_a_start_at_once(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.faulty.set("hang_at_start")
    closed: list[tuple[float, float]] = []

    def close() -> None:
        wait_until(lambda: worker.client.pid, STEP, "a worker that starts")
        began = time.monotonic()
        worker.client.close()
        closed.append((began, time.monotonic()))

    closer = threading.Thread(target=close)
    closer.start()
    assert refused(worker) == "the policy worker was closed while it was starting"
    closer.join(STEP)
    assert_in_time(*closed[0], 0.0, 1.0, "close")


def test_a_client_closed_before_its_start_does_not_start(tmp_path: Path) -> None:
    worker = Worker(tmp_path, "nowhere")
    worker.client.close()
    with pytest.raises(WorkerError, match="closed before it was started"):
        worker.client.start()


def test_no_descriptor_thread_process_or_folder_is_left_over_many_starts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    left = []
    for cycle in range(12):
        worker = Worker(tmp_path / str(cycle), "nowhere", load_timeout=0.3)
        worker.faulty.set("hang_at_start" if cycle % 4 == 0 else "exit_at_start")
        refused(worker)
        left.append((sorted(os.listdir("/proc/self/fd")), threading.active_count(), len(descendants(os.getpid()))))
    assert left[-1] == left[0]
    assert list((tmp_path / "temporary").iterdir()) == []


# What is imported, and the settings


@pytest.mark.parametrize(
    "module", ["worker.client", "worker.server", "worker.__main__", "control.commander", "control.freshness"]
)
def test_neither_torch_nor_ros_is_imported(module: str) -> None:
    code = f"import dysl_vla_ros.{module}, sys; print(sorted({{'torch', 'transformers', 'rclpy'}} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert output.stdout.strip() == "[]", output.stderr


def test_no_threads_given_are_half_the_cores_and_at_least_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, threads in ((1, 1), (2, 1), (8, 4)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert compute_threads(0) == threads
    assert compute_threads(3) == 3


def test_the_spec_is_taken_from_the_model_settings() -> None:
    model = ModelSettings(checkpoint="c", adapters="a", threads=2, python="p", load_timeout=5.0)
    assert WorkerSpec.from_settings(model) == WorkerSpec("c", "a", "cpu", 2, "p", 5.0)

import contextlib
import dataclasses
import math
import socket
import struct
import threading

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysl_vla_ros.interfaces import (
    THE_INSTRUCTION,
    ActionChunk,
    ActionSpec,
    PolicyDescription,
    ProprioceptionSpec,
    SkipTrace,
    StepResult,
    Timings,
)
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.settings import GuidanceSettings, RuntimeSettings, SkippingSettings
from dysl_vla_ros.worker.messages import (
    MESSAGE_LIMIT,
    PROTOCOL,
    Answer,
    Fault,
    Hello,
    Load,
    MessageError,
    Step,
    decode,
    encode,
    receive,
)

DESCRIPTION = PolicyDescription(
    family="reference",
    model_hash="ab" * 32,
    weights_hash="ab" * 32,
    cameras=("image", "wrist_image"),
    proprioception=ProprioceptionSpec(("ee.x", "gripper.opening"), ("m", ""), "base"),
    action=ActionSpec(8, 0.05, False, (0.0, 0.0, 0.0, 0.5), (1.0, 1.0, 1.0, 0.5)),
    layers_total=24,
    static_layers=(0, 8, 16, 23),
    blocks=((1, 8), (9, 16), (17, 23)),
    calibrated={"step": 0.01, "stride": "paper"},
    instructions=("push the puck", "öffne die Schublade"),
)
STEP = Step(
    episode=3,
    sequence=17,
    frames={"image": (480, 640), "wrist_image": (96, 96)},
    proprioception=np.array([0.1, np.pi], np.float32),
    instruction="push the puck",
    played=np.zeros((0, 4), np.float32),
    gaps=(0, 2),
    first_index=2,
    settings=RuntimeSettings(SkippingSettings(threshold=0.7), GuidanceSettings(stride="integral"), 4),
)
TRACE = SkipTrace(
    executed=(True, False, True),
    layer_calls=2,
    allow_points=(1,),
    skip_points=(-1,),
    controller_outputs=(math.nan,),
    continuity=-0.1 / 3.0,
    continuity_change=0.0,
    candidate_change=-1e-300,
    verified=False,
    verify_reason="",
    full_depth_reason="warm-up",
)
ANSWER = Answer(
    3,
    17,
    StepResult(ActionChunk(np.float32([[1 / 3, 0, -0.0, 1e-38]]), 0.05, True), TRACE, Timings(vision=1.5, total=9.25)),
    "",
)
LOAD = Load("/a", "", "cpu", 1, "fresh", 0, "", PolicyOptions(RobotContract(cameras={"image": "/a"}), "/b", 3))
MESSAGES = [Hello("0.1.0", PROTOCOL, "3.11.4"), LOAD, DESCRIPTION, STEP, ANSWER,
            Answer(0, 1, None, "why", THE_INSTRUCTION), Fault("why"),
            dataclasses.replace(ANSWER, warnings=("the policy does not know 推",))]  # fmt: skip


def same(one: object, other: object) -> bool:
    """Equal in type and to the bit, NaN included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return (one.shape, one.dtype, one.tobytes()) == (other.shape, other.dtype, other.tobytes())
    if dataclasses.is_dataclass(one):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in dataclasses.fields(one))
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other or (one != one and other != other)


def body(message: object) -> dict:
    return msgpack.unpackb(encode(message)[4:])[1]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_bit_for_bit(message: object) -> None:
    assert same(decode(encode(message)[4:]), message)


@given(st.lists(st.floats(width=32), max_size=24).map(lambda values: np.array(values, np.float32)))
def test_arrays_come_back_bit_for_bit_and_can_be_written_to(values: np.ndarray) -> None:
    back = decode(encode(dataclasses.replace(STEP, proprioception=values))[4:]).proprioception
    assert same(back, values)
    back[:] = 0.0


def test_numbers_of_numpy_travel_as_plain_ones() -> None:
    timings = Timings(total=np.float32(0.5))  # type: ignore[arg-type]
    result = dataclasses.replace(ANSWER.result, timings=timings)
    back = decode(encode(dataclasses.replace(ANSWER, result=result))[4:])
    assert type(back.result.timings.total) is float


def test_the_stream_may_be_cut_anywhere() -> None:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10.0)

    def send() -> None:  # in a thread: a byte a packet fills the socket before the whole message is in it
        for byte in encode(STEP) + encode(Fault("x")):
            theirs.send(bytes([byte]))

    sender = threading.Thread(target=send, daemon=True)
    with ours, theirs:
        ours.settimeout(10.0)
        sender.start()
        assert same(receive(ours), STEP)
        assert same(receive(ours), Fault("x"))
        sender.join(10.0)


@pytest.mark.parametrize("length", [0, 2, 4, 10])
def test_the_end_of_the_stream_is_none_also_in_the_middle_of_a_message(length: int) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            theirs.sendall(encode(STEP)[:length])
        assert receive(ours) is None


def test_too_large_a_message_is_neither_sent_nor_taken() -> None:
    with pytest.raises(MessageError, match=f"at most {MESSAGE_LIMIT} can be sent"):
        encode(Fault("x" * MESSAGE_LIMIT))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(struct.pack("<I", MESSAGE_LIMIT + 1))
        with pytest.raises(MessageError, match=f"at most {MESSAGE_LIMIT} are taken"):
            receive(ours)


def changed(path: str, value: object) -> bytes:
    """A step message with one field of another value; ``path`` "" is the body itself."""
    plain = body(STEP)
    *parents, name = path.split(".")
    place = plain
    for parent in parents:
        place = place[parent]
    place[name] = value
    return msgpack.packb(["step", plain])


ARRAY = {"shape": [1], "dtype": "float32", "bytes": b"\0" * 4}
WRONG = {
    "an unknown field": (changed("more", 1), "step must have the fields episode, sequence"),
    "an unknown field by its name": (changed("more", 1), "; unknown: more"),
    "a text for a number": (changed("episode", "3"), "step.episode must be int, not '3'"),
    "a number for a flag": (changed("settings.guidance.prior", 1), "step.settings.guidance.prior must be bool, not 1"),
    "a nested wrong type": (changed("settings.guidance.window", 1.5), "step.settings.guidance.window must be int"),
    "a pair of three": (changed("frames", {"image": [1, 2, 3]}), "step.frames.image must be"),
    "another dtype": (changed("played", ARRAY | {"dtype": "uint8", "bytes": b"\0"}), "array of float32, not of uint8"),
    "a dtype that runs code": (changed("played", ARRAY | {"dtype": "object"}), "step.played must be an array"),
    "a dtype that is no text": (changed("played", ARRAY | {"dtype": []}), "step.played must be an array"),
    "too few bytes": (changed("played", ARRAY | {"shape": [2]}), "does not go with its bytes"),
    "a negative size": (changed("played", ARRAY | {"shape": [-1]}), "does not go with its bytes"),
    "no array": (changed("played", [1.0]), "step.played must be an array"),
    "an unknown kind": (msgpack.packb(["pickle", {}]), "there are hello, load"),
    "no message": (msgpack.packb(5), "no message of this protocol"),
    "no msgpack": (b"\xc1", "no msgpack"),
    "nothing": (b"", "no msgpack"),
    "an extension": (
        msgpack.packb(["fault", {"text": msgpack.ExtType(1, b"x"), "draft": ""}]),
        "fault.text must be str",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_message_is_refused_by_name(kind: str) -> None:
    payload, message = WRONG[kind]
    with pytest.raises(MessageError) as caught:
        decode(payload)
    assert message in str(caught.value)


@given(st.integers(0, len(encode(ANSWER)) - 5), st.integers(0, 255))
def test_a_changed_byte_gives_a_message_or_a_refusal(place: int, value: int) -> None:
    payload = bytearray(encode(ANSWER)[4:])
    payload[place] = value
    with contextlib.suppress(MessageError):
        decode(bytes(payload))


@given(st.binary(max_size=200))
def test_any_bytes_give_a_message_or_a_refusal(payload: bytes) -> None:
    with contextlib.suppress(MessageError):
        decode(payload)

"""Listens to both nodes while an episode runs and keeps what the summary, the report and the video are made of."""

import hashlib
import io
import math
import threading
from collections.abc import Callable

import numpy as np
from lifecycle_msgs.msg import TransitionEvent
from PIL import Image as Pixels
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from dysl_vla_ros.interfaces import SkipTrace, Timings
from dysl_vla_ros.msg import EndEffectorAction, SceneState, SkipReport
from dysl_vla_ros.records.trace import TIMINGS, EpisodeRecord, InferenceRecord, Picture
from dysl_vla_ros.simulation.tasks import CONTROL_PERIOD

MAX_PICTURES = 600  # an episode; a minute at 10 Hz
_EVERY_ONE = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE)
_NEWEST = QoSProfile(depth=2, reliability=ReliabilityPolicy.BEST_EFFORT)


class Recorder:
    """Subscriptions of the demo's node. Callbacks run in its executor's thread; all else may be called from any.

    An inference belongs to the episode when it answers a picture taken after the scene's reset, under the episode's
    instruction; whatever comes late from the episode before is dropped.
    """

    def __init__(self, node: Node, policy: str = "/dysl_vla", robot: str = "/sim") -> None:
        """Subscribe to the node named ``policy`` and to the simulator named ``robot``."""
        self.changed = threading.Condition()
        self.state: SceneState | None = None
        self.policy_state = ""  # the lifecycle state last reported
        self.record: EpisodeRecord | None = None
        self._running = False
        self._max_ticks = 0
        self._scene_episode = -1
        self._scene_begin = math.inf  # s, stamp of the present scene's first tick
        self._first_commanded: int | None = None  # tick of the scene
        self._begin = math.inf  # s, stamp of the first picture that was answered
        self._instruction_hash = ""
        for kind, topic, callback, qos in (
            (SceneState, f"{robot}/state", self._on_state, _EVERY_ONE),
            (Image, f"{robot}/scene_image", self._on_picture, _NEWEST),
            (SkipReport, f"{policy}/skip_report", self._on_report, _EVERY_ONE),
            (EndEffectorAction, f"{policy}/action", self._on_action, _EVERY_ONE),
            (TransitionEvent, f"{policy}/transition_event", self._on_transition, _EVERY_ONE),
        ):
            node.create_subscription(kind, topic, self._locked(callback), qos)

    def begin(self, record: EpisodeRecord, scene_episode: int, max_ticks: int) -> None:
        """Keep what comes from now on in ``record``; ``scene_episode`` is the number that the reset answered.

        The figures end with success or after ``max_ticks``; pictures are kept until :meth:`end`.
        """
        with self.changed:
            self.record, self._running, self._max_ticks = record, True, max_ticks
            self._scene_episode = scene_episode
            self._first_commanded, self._begin = None, math.inf
            self._instruction_hash = hashlib.sha256(record.instruction.encode()).hexdigest()

    @property
    def scene_ready(self) -> bool:
        """Whether the scene that :meth:`begin` named has been seen."""
        return self.state is not None and self.state.episode == self._scene_episode

    @property
    def moving(self) -> bool:
        """Whether the episode's first command has reached the arm."""
        return self._first_commanded is not None

    @property
    def over(self) -> bool:
        """Whether the episode has succeeded or used its ticks."""
        return self.record is not None and (self.record.success or self.record.ticks >= self._max_ticks)

    def end(self) -> None:
        """Keep nothing more."""
        with self.changed:
            self._running = False

    def _locked(self, callback: Callable[..., None]) -> Callable[..., None]:
        def run(message: object) -> None:
            with self.changed:
                callback(message)
                self.changed.notify_all()

        return run

    def _on_state(self, state: SceneState) -> None:
        if self.state is None or self.state.episode != state.episode:
            self._scene_begin = _seconds(state.header.stamp)
        self.state = state
        if not self._running or self.record is None or self.over or not self.scene_ready:
            return
        if state.commanded and self._first_commanded is None:
            self._first_commanded = state.ticks - 1  # a command in force at this tick came during the one before
        if self._first_commanded is not None:
            self.record.ticks = state.ticks - self._first_commanded
            self.record.success = state.success
        seen = _seconds(state.header.stamp)
        if state.object_moved and math.isnan(self.record.object_moved) and seen >= self._begin:
            self.record.object_moved = seen - self._begin

    def _on_report(self, report: SkipReport) -> None:
        taken = _seconds(report.image_stamp)
        if not self._running or self.record is None or self.over:
            return
        if report.instruction_hash != self._instruction_hash or not self.scene_ready or taken < self._scene_begin:
            return
        self._begin = min(self._begin, taken)
        self.record.blocks = tuple(zip(map(int, report.block_first), map(int, report.block_end), strict=True))
        self.record.inferences.append(inference_record(report, taken - self._begin))
        self.record.seconds = taken - self._begin + CONTROL_PERIOD

    def _on_action(self, action: EndEffectorAction) -> None:
        begun = self._begin < math.inf and not self.over
        if self._running and self.record is not None and action.stop_reason and begun:
            self.record.stops[action.stop_reason] += 1

    def _on_picture(self, message: Image) -> None:
        taken = _seconds(message.header.stamp)
        if not self._running or self.record is None or taken < self._begin or len(self.record.pictures) >= MAX_PICTURES:
            return
        pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        target = io.BytesIO()
        Pixels.fromarray(pixels).save(target, "JPEG", quality=88)
        self.record.pictures.append(Picture(taken - self._begin, target.getvalue()))

    def _on_transition(self, event: TransitionEvent) -> None:
        self.policy_state = event.goal_state.label


def inference_record(report: SkipReport, time: float) -> InferenceRecord:
    """Turn a skip report into a record; ``time`` is seconds since the episode's start."""
    return InferenceRecord(
        time=time,
        trace=SkipTrace(
            executed=tuple(map(bool, report.executed)),
            layer_calls=int(report.layer_calls),
            allow_points=tuple(map(int, report.allow_points)),
            skip_points=tuple(map(int, report.skip_points)),
            controller_outputs=tuple(map(float, report.controller_outputs)),
            continuity=report.continuity,
            continuity_change=report.continuity_change,
            candidate_change=report.candidate_change,
            verified=report.verified,
            verify_reason=report.verify_reason,
            full_depth_reason=report.full_depth_reason,
            budget_cut=report.budget_cut,
        ),
        timings=Timings(**{name: getattr(report, f"{name}_ms") for name in TIMINGS if name != "image_age"}),
        image_age=report.image_age_ms,
        missed_deadline=report.missed_deadline,
        seam=report.seam,
    )


def _seconds(stamp: object) -> float:
    """Return a builtin_interfaces/Time in seconds."""
    return float(stamp.sec) + stamp.nanosec * 1e-9  # type: ignore[attr-defined]  # generated class without types

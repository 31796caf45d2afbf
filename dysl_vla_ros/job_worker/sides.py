"""A worker's policy, stepped: as a :class:`~dysl_vla_ros.runtime.step.Runtime` would be, over the worker's protocol."""

import os
from collections.abc import Sequence

from dysl_vla_ros.errors import DyslVlaError, InstructionError, NonFiniteActionError, ObservationError
from dysl_vla_ros.interfaces import (
    THE_INSTRUCTION,
    THE_MODEL,
    THE_OBSERVATION,
    FloatArray,
    Observation,
    PolicyDescription,
    StepResult,
)
from dysl_vla_ros.job_worker.client import JobWorker
from dysl_vla_ros.job_worker.messages import OpenSide, StepSide
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.worker.messages import Answer

FAULTS: dict[str, type[DyslVlaError]] = {
    THE_MODEL: NonFiniteActionError, THE_OBSERVATION: ObservationError, THE_INSTRUCTION: InstructionError,
}  # fmt: skip


class WorkerPolicy:
    """What a worker has loaded, and its instructions' judge."""

    def __init__(self, worker: JobWorker, adapters: str) -> None:
        """Step the policy of ``worker`` with the DySL folder ``adapters``; "": the checkpoint's own, if it has one."""
        self._worker, self._adapters = worker, adapters
        self._sides = 0
        self._shown: Observation | None = None  # that lies in the shared file
        self._known: dict[str, str] = {}

    def side(self, adapters: str = "") -> "WorkerSide":
        """Return the policy with an episode of its own, warm; ``adapters``: in place of its DySL folder.

        Raises:
            WorkerError: the folder does not belong to the policy, or it cannot compute.
        """
        folder = adapters or self._adapters
        found = self._worker.ask(OpenSide(os.path.abspath(folder) if folder else ""), PolicyDescription)
        self._sides += 1
        return WorkerSide(self, self._sides - 1, found)

    def unreadable(self, text: str) -> str:
        """Return why the policy cannot read an instruction, "" where it can."""
        if text not in self._known:
            self._known[text] = self._worker.reads(text)
        return self._known[text]

    def ask(self, observation: Observation, order: StepSide) -> Answer:
        """Have one side compute a step on an observation."""
        if observation is not self._shown:  # sides that are compared see it one after the other
            self._worker.frames.put_alone(observation)
            self._shown = observation
        return self._worker.ask(order, Answer)


class WorkerSide:
    """One way of running a worker's policy.

    Attributes:
        description: of the policy with its DySL folder.
    """

    def __init__(self, policy: WorkerPolicy, number: int, description: PolicyDescription) -> None:
        self.description = description
        self._policy, self._number, self._begins = policy, number, True

    def reset(self) -> None:
        """Begin an episode with the next step."""
        self._begins = True

    def step(
        self, observation: Observation, played: FloatArray, settings: RuntimeSettings, gaps: Sequence[int] = ()
    ) -> StepResult:
        """Compute one action chunk, see :meth:`dysl_vla_ros.runtime.step.Runtime.step`.

        Raises:
            InstructionError, ObservationError, NonFiniteActionError: as there.
            WorkerError: the worker cannot compute it, or has ended.
        """
        begins, self._begins = self._begins, False
        answer = self._policy.ask(observation, StepSide(self._number, begins, played, tuple(gaps), settings))
        if answer.result is None:
            raise FAULTS[answer.at_fault](answer.fault)
        return answer.result

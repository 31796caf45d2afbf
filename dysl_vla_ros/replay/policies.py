"""What a replay runs: a checkpoint of ours in this process, another project's in the Python of its library."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.job_worker.apart import Apart, require_params
from dysl_vla_ros.job_worker.opening import opened_worker
from dysl_vla_ros.job_worker.sides import WorkerPolicy
from dysl_vla_ros.policies.exportable import family_of, why_not
from dysl_vla_ros.policies.layouts import OURS, layout_of
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.recordings.playback import Steps
from dysl_vla_ros.recordings.source import instruction_judge
from dysl_vla_ros.runtime.step import Runtime


class ReplayedPolicy(Protocol):
    """A loaded policy, of which any number of sides may be run."""

    def side(self, adapters: str = "") -> Steps:
        """Return the policy with an episode of its own, warm.

        Args:
            adapters: DySL folder in place of the one that it was opened with; "": that one.
        """

    def unreadable(self, text: str) -> str:
        """Return why the policy cannot read an instruction, "" where it can."""


class OwnPolicy:
    """A policy in this process."""

    def __init__(self, runtime: Runtime, checkpoint: str, beside: Callable[[str], Runtime] | None = None) -> None:
        """Run the policy of ``runtime``, which was loaded from ``checkpoint``, with its DySL folder.

        ``beside`` loads another DySL folder beside it; None: on torch.
        """
        self._runtime = runtime
        self._beside = beside or (lambda adapters: Runtime.beside(runtime.policy, checkpoint, adapters))
        self.unreadable = instruction_judge(runtime.policy)

    def side(self, adapters: str = "") -> Runtime:
        """Return the policy with an episode of its own, warm."""
        loaded = self._beside(adapters) if adapters else self._runtime
        side = Runtime(loaded.policy, loaded.dysl)
        side.warm_up()
        return side


class PolicySource:
    """Opens policies under one set of options; what they hold is given back with ``parts``."""

    def __init__(
        self,
        parts: contextlib.ExitStack,
        options: PolicyOptions,
        apart: Apart,
        threads: int,
        folder: Path,
        engine: EngineChoice,
    ) -> None:
        """Note how policies are opened.

        Args:
            parts: closes what was opened.
            options: what the files of a checkpoint do not say.
            apart: the same for another project's checkpoint, and where it is computed.
            threads: compute threads.
            folder: in which the frame lies that a worker looks at.
            engine: what computes; its export is that of the policy that is opened first.
        """
        self._parts, self._options, self._apart, self._threads, self._folder = parts, options, apart, threads, folder
        self._engine = engine

    def open(self, checkpoint: str, adapters: str = "") -> ReplayedPolicy:
        """Load a checkpoint; ``adapters``: its DySL folder, "": its own, full depth where it has none.

        Raises:
            CheckpointError, SettingError, ContractError: it cannot be loaded here, or was not exported.
            WorkerError: it cannot be loaded in the Python of its library; says why.
            DataError: nothing says what another project's files do not.
        """
        engine, self._engine = self._engine, EngineChoice(self._engine.runtime)
        if layout_of(Path(checkpoint)) == OURS:
            own = partial(Runtime.load, checkpoint, threads=self._threads, options=self._options, engine=engine.runtime)
            loaded = own(adapters, export=engine.export)
            return OwnPolicy(loaded, checkpoint, own if engine.runtime == ONNX else None)
        if engine.runtime == ONNX:
            raise CheckpointError(f"{checkpoint}: {why_not(family_of(Path(checkpoint)))}; compute it with torch")
        require_params(checkpoint, self._apart.params)
        opening = opened_worker(checkpoint, self._folder, self._apart, threads=self._threads)
        return WorkerPolicy(self._parts.enter_context(opening), adapters)

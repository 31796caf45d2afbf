"""What computes a policy, as a setting: of a node ``model.runtime`` and ``model.export``, of a verb ``--runtime``."""

from dataclasses import dataclass

from dysl_vla_ros.engines import ONNX, RUNTIMES, TORCH
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.settings import ModelSettings


@dataclass(frozen=True)
class EngineChoice:
    """Which engine computes, and where what it needs lies."""

    runtime: str = TORCH  # of RUNTIMES
    export: str = ""  # of ONNX Runtime: folder that `dysl_vla export` wrote; "": where it is written by default

    def __post_init__(self) -> None:
        """Refuse a runtime that is none.

        Raises:
            SettingError: lists those there are.
        """
        if self.runtime not in RUNTIMES:
            raise SettingError(f"the runtime is {self.runtime!r}, expected {' or '.join(RUNTIMES)}")

    @classmethod
    def of(cls, model: ModelSettings) -> "EngineChoice":
        """Take what the ``model`` settings of a node say."""
        return cls(model.runtime, model.export if model.runtime == ONNX else "")

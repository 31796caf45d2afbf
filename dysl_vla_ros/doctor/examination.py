"""What the checks look at: the options, the environment, and the graph, looked at once and only when asked for."""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from dysl_vla_ros.doctor.folders import share_folder
from dysl_vla_ros.doctor.graph import Snapshot
from dysl_vla_ros.doctor.start import start_fault


@dataclass(frozen=True)
class Options:
    """What the doctor was asked."""

    checkpoint: Path | None = None  # None: the running node's, else the one that is shipped
    adapters: str = ""
    images: tuple[str, ...] = ()
    live: float = 0.0  # s of measuring; 0.0: none


@dataclass
class Examination:
    """One run of the doctor."""

    options: Options = field(default_factory=Options)
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    progress: Callable[[float], None] = lambda seconds: None
    graph_fix: str = ""  # what lets rclpy start, once it was found that it does not

    @cached_property
    def _looked(self) -> tuple[Snapshot | None, str]:
        if importlib.util.find_spec("rclpy") is not None and (fault := start_fault(self.environment)):
            self.graph_fix = fault.fix
            return None, fault.text
        try:
            from dysl_vla_ros.doctor.probe import look

            return look(self.options.images, self.options.live, self.progress), ""
        except (ImportError, RuntimeError) as error:  # no ROS here, or none that starts
            return None, f"{error}".strip().splitlines()[0]

    @property
    def graph(self) -> Snapshot | None:
        """What was seen of the ROS graph; None where rclpy is not there or does not start."""
        return self._looked[0]

    @property
    def graph_fault(self) -> str:
        """Why there is no :attr:`graph`."""
        return self._looked[1]

    @property
    def checkpoint(self) -> Path:
        """The folder of the base checkpoint: as asked, the running node's, or the one that is shipped."""
        if self.options.checkpoint is not None:
            return self.options.checkpoint
        node = self.graph.node if self.graph else None
        if node is not None and (named := str(node.parameter("model.checkpoint", ""))) and Path(named).is_dir():
            return Path(named)
        return share_folder() / "checkpoints" / "reference"

    @property
    def adapters(self) -> str:
        """The DySL folder as the node names it; "": the checkpoint's own."""
        node = self.graph.node if self.graph else None
        return self.options.adapters or (str(node.parameter("model.adapters", "")) if node else "")

    @property
    def worker_python(self) -> str:
        """The running node's ``model.python`` where it is not this interpreter, else ""."""
        node = self.graph.node if self.graph else None
        named = str(node.parameter("model.python", "")) if node else ""
        return named if named and Path(named) != Path(sys.executable) else ""

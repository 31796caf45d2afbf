"""What is to be distilled, as plain values: from a command to the process that computes. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dysl_vla_ros.distillation.settings import DistillationSettings, ModuleSettings


@dataclass(frozen=True)
class DistillationPlan:
    """A distillation with the teacher beside.

    Attributes:
        folder: the DySL folder, in which static layers were chosen.
        stages: of the training.
        modules: what is trained.
        go_on_from: DySL folder to begin with; "": new modules.
        together: frames of a pass at most.
        digest: of the frames, so that an interrupted run is gone on with over the same ones alone.
        told: where the frames come from, for the report.
    """

    folder: str
    stages: DistillationSettings
    modules: ModuleSettings = field(default_factory=ModuleSettings)
    go_on_from: str = ""
    together: int = 1
    digest: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)

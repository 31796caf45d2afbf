"""DySL-VLA for ROS 2: vision-language-action models whose layers are skipped when the moment allows it.

The method (``skipping``) knows no ROS; the ROS code (``nodes``) contains no method. ``docs/architecture.md``
says which package answers which question and which way the imports point.

What the commands do can be called: ``docs/python.md``. Each of these names is imported when it is first used, so that
``import dysl_vla_ros`` loads neither torch nor ROS.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dysl_vla_ros.evaluation.evaluate import evaluate
    from dysl_vla_ros.jobs.calibrate import calibrate
    from dysl_vla_ros.jobs.distill import distill
    from dysl_vla_ros.jobs.load import load
    from dysl_vla_ros.jobs.settings import CalibrateSettings, DistillSettings, TuneSettings
    from dysl_vla_ros.jobs.tune import tune
    from dysl_vla_ros.replay.job import replay

__version__ = "0.1.0"

__all__ = [
    "CalibrateSettings",
    "DistillSettings",
    "TuneSettings",
    "calibrate",
    "distill",
    "evaluate",
    "load",
    "replay",
    "tune",
]

_FOUND_IN = {
    "CalibrateSettings": "jobs.settings",
    "DistillSettings": "jobs.settings",
    "TuneSettings": "jobs.settings",
    "calibrate": "jobs.calibrate",
    "distill": "jobs.distill",
    "evaluate": "evaluation.evaluate",
    "load": "jobs.load",
    "replay": "replay",  # the package itself, which can be called: its name was there first
    "tune": "jobs.tune",
}


def __getattr__(name: str) -> Any:
    """Import what ``__all__`` names."""
    if name not in _FOUND_IN:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_FOUND_IN[name]}")
    return module if name == "replay" else getattr(module, name)


def __dir__() -> list[str]:
    """Name everything, imported or not."""
    return sorted({*globals(), *__all__})

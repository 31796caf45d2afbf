"""What controllers tolerate: the action error that they skip below, set without training."""

from typing import TYPE_CHECKING

import numpy as np

from dysl_vla_ros.calibration.signals import ERROR_FLOOR

if TYPE_CHECKING:
    from dysl_vla_ros.skipping.modules import DyslModules

REMEMBERED_AT = 0.05  # action L1, normalised: the tolerated error that controllers are at while passes are remembered


def set_tolerated_error(modules: "DyslModules", error: float) -> None:
    """Shift every controller so that its probability is one half where it foresees exactly ``error``."""
    offset = float(np.log(error + ERROR_FLOOR))
    for controller in modules.controllers.values():
        controller.offset.fill_(offset)  # type: ignore[operator]  # ModuleDict forgets what it holds

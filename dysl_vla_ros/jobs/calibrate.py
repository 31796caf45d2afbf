"""What is chosen on full-depth runs: static layers before distillation, thresholds after it."""

from typing import TYPE_CHECKING

from dysl_vla_ros.jobs.learning_data import folder_of, has_adapters
from dysl_vla_ros.jobs.settings import AnyPath, CalibrateSettings, Data
from dysl_vla_ros.runs.training_data import TrainingData

if TYPE_CHECKING:
    from dysl_vla_ros.distillation.static_choice import StaticChoice
    from dysl_vla_ros.jobs.thresholds import Thresholds


def calibrate(
    checkpoint: AnyPath,
    data: Data | TrainingData = (),
    adapters: AnyPath = "",
    settings: CalibrateSettings | None = None,
) -> "StaticChoice | Thresholds":
    """Choose static layers; where the DySL folder has adapters, search their thresholds instead.

    Args:
        checkpoint: folder of the base.
        data: a folder that ``dysl_vla demonstrations`` wrote, or one or more bags; or what ``distill`` had opened.
            Thresholds are searched on what is held out of bags, else on runs that are played in the simulator.
        adapters: DySL folder, made where it is missing; "": ``dysl`` in the checkpoint.
        settings: None: the defaults of the command line.

    Raises:
        CheckpointError: a folder cannot be used.
        DataError: too little data, or it is neither demonstrations nor bags; a folder cannot be written to.
        BagError: a bag cannot serve the policy.
        SettingError: the device or the number of static layers is none that there is.
    """
    from dysl_vla_ros.jobs.static_layers import choose_layers
    from dysl_vla_ros.jobs.thresholds import search_thresholds

    if has_adapters(folder_of(checkpoint, adapters)):
        return search_thresholds(checkpoint, data, adapters, settings)
    return choose_layers(checkpoint, data, adapters, settings)

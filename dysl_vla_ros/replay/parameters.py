"""Settings from a ROS parameter file, the very file that ``params_file:=`` gives to the node. No ROS is needed.

What concerns a replay is taken over (``skipping``, ``guidance``, ``control.actions_per_inference``, the ages of
``safety`` that end an episode, of ``model`` what computes, of ``model`` and ``robot`` what the checkpoint's files do
not say); the rest is checked and otherwise of no effect. Unknown names are refused: in the node they are a warning,
here the figures would be those of other settings than the file was meant to set.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from dysl_vla_ros.engines.choice import EngineChoice
from dysl_vla_ros.params_file import read_params_file
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.settings import ControlSettings, GuidanceSettings, RuntimeSettings, SafetySettings
from dysl_vla_ros.settings import SkippingSettings as Skipping


@dataclass(frozen=True)
class ReplayParameters:
    """Of a node's parameters those that a replay depends on."""

    skipping: Skipping = Skipping()
    guidance: GuidanceSettings = GuidanceSettings()
    control: ControlSettings = ControlSettings()
    safety: SafetySettings = SafetySettings()
    options: PolicyOptions = AS_THE_FILES_SAY  # what the checkpoint's files do not say
    engine: EngineChoice = EngineChoice()  # what computes

    @property
    def runtime(self) -> RuntimeSettings:
        """The part that goes with every inference."""
        return RuntimeSettings(self.skipping, self.guidance, self.control.actions_per_inference)

    @property
    def full_depth(self) -> RuntimeSettings:
        """The same, with skipping off."""
        return dataclasses.replace(self.runtime, skipping=dataclasses.replace(self.skipping, rule="full"))


def read_parameters(path: Path) -> ReplayParameters:
    """Read the parameters of the node ``dysl_vla`` from a ROS 2 parameter file.

    Raises:
        SettingError: the file cannot be read or is no parameter file, a name is unknown, a value is wrong; every
            fault of the values is named at once.
    """
    read = read_params_file(path)
    own = {name: read.groups[name] for name in ("skipping", "guidance", "control", "safety")}
    return ReplayParameters(**own, options=read.options, engine=EngineChoice.of(read.groups["model"]))

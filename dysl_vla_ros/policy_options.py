"""What a checkpoint's files do not say, or say otherwise than the user wants: it travels from node and commands to the
policy. Whoever needs more of it adds a field of the name that ``model`` settings have.
"""

from dataclasses import dataclass, field, fields

from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.settings import ModelSettings


@dataclass(frozen=True)
class PolicyOptions:
    """Each field but ``robot`` is a ``model`` setting; "" and 0: as the files say."""

    robot: RobotContract = field(default_factory=RobotContract)
    tokenizer: str = ""
    flow_steps: int = 0
    horizon: int = 0
    bounds: str = ""
    statistics_key: str = ""

    @classmethod
    def of(cls, model: ModelSettings, robot: RobotContract) -> "PolicyOptions":
        """Take the policy's part of the ``model`` settings."""
        return cls(robot, **{it.name: getattr(model, it.name) for it in fields(cls) if it.name != "robot"})


AS_THE_FILES_SAY = PolicyOptions()

"""What a checkpoint's files do not say, or say otherwise than the user wants: it travels from node and commands to the
policy. Whoever needs more of it adds a field of the name that ``model`` settings have.
"""

from dataclasses import dataclass, field, fields

from dysl_vla_ros.errors import CheckpointError, ContractError
from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.settings import ModelSettings


@dataclass(frozen=True)
class PolicyOptions:
    """Each field but ``robot`` is a ``model`` setting; "" and 0: as the files say."""

    robot: RobotContract = field(default_factory=RobotContract)
    tokenizer: str = ""
    flow_steps: int = 0
    sha256: str = ""
    horizon: int = 0
    bounds: str = ""
    statistics_key: str = ""

    def require_weights(self, found: str, where: str) -> None:
        """Refuse weights of another SHA-256 than ``model.sha256``.

        Args:
            found: that of the weights.
            where: the file or folder.

        Raises:
            CheckpointError: it is another one.
        """
        if self.sha256 and found != self.sha256:
            raise CheckpointError(
                f"{where}: its weights have the SHA-256 {found}, model.sha256 says {self.sha256}; get the weights that "
                "are meant, or correct the setting"
            )

    def require_own_units(self, where: str) -> None:
        """Refuse another size of units where the files themselves say that actions are in metres and radians.

        Raises:
            ContractError: ``robot.action.unit_size`` is said.
        """
        if self.robot.action_unit_size:
            raise ContractError(f"{where}: its actions are in m and rad; leave robot.action.unit_size empty")

    @classmethod
    def of(cls, model: ModelSettings, robot: RobotContract) -> "PolicyOptions":
        """Take the policy's part of the ``model`` settings."""
        return cls(robot, **{it.name: getattr(model, it.name) for it in fields(cls) if it.name != "robot"})


AS_THE_FILES_SAY = PolicyOptions()

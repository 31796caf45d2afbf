"""The network that is trained, and its loss.

Masked L1 on the normalised chunk, and 0.3 times the L1 of object and goal position read off the proprioception token,
which only the simulator can label and only training uses.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager

from torch import Tensor, nn

from dysl_vla_ros.policies.reference import ReferenceConfig, ReferenceNetwork
from dysl_vla_ros.training.batches import Batch

Autocast = Callable[[], AbstractContextManager[None]]

SCENE_WEIGHT = 0.3  # of the auxiliary loss


class Student(nn.Module):
    """The network with its auxiliary head, which is not shipped."""

    def __init__(self, config: ReferenceConfig) -> None:
        super().__init__()
        self.network = ReferenceNetwork(config)
        self.scene = nn.Linear(config.width, 6)

    def loss(self, batch: Batch, autocast: Autocast) -> tuple[Tensor, Tensor]:
        """Return the training loss and the masked L1 of the actions."""
        network = self.network
        with autocast():
            predicted, hidden = network(batch.pictures, batch.words, batch.proprioception)
            scene = self.scene(network.norm(hidden[:, network.proprioception_at]))
        error = ((predicted.float() - batch.actions).abs() * batch.mask).sum()
        error = error / (batch.mask.sum() * batch.actions.shape[-1])
        return error + SCENE_WEIGHT * (scene.float() - batch.scene).abs().mean(), error.detach()

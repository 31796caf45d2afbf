"""The network that is trained, and its loss.

Masked L1 on the normalised chunk, and 0.3 times the L1 of object and goal position read off the proprioception token,
which only the simulator can label and only training uses.
"""

import numpy as np
from torch import Tensor, nn

from dysl_vla_ros.policies.reference import ReferenceConfig, ReferenceNetwork
from dysl_vla_ros.training.batches import SCENE_WEIGHT, Autocast, Batch
from dysl_vla_ros.training.board_lessons import BoardBatch, BoardHeads, board_loss, lesson_loss


class Student(nn.Module):
    """The network with its auxiliary heads, which are not shipped; ``board``: with those of the board."""

    def __init__(self, config: ReferenceConfig, *, board: bool = False) -> None:
        super().__init__()
        self.network = ReferenceNetwork(config)
        self.scene = nn.Linear(config.width, 6)
        self.board = BoardHeads(config.width) if board else None

    def loss(self, batch: Batch, autocast: Autocast) -> tuple[Tensor, Tensor]:
        """Return the training loss and the masked L1 of the actions."""
        network = self.network
        with autocast():
            predicted, hidden = network(batch.pictures, batch.words, batch.proprioception)
            scene = self.scene(network.norm(hidden[:, network.proprioception_at]))
        error = ((predicted.float() - batch.actions).abs() * batch.mask).sum()
        error = error / (batch.mask.sum() * batch.actions.shape[-1])
        return error + SCENE_WEIGHT * (scene.float() - batch.scene).abs().mean(), error.detach()

    def board_loss(self, batch: BoardBatch, autocast: Autocast, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return the training loss of the board's questions and the masked L1 of their actions."""
        assert self.board is not None
        return board_loss(self.network, self.board, self.scene, batch, autocast, random)

    def lesson_loss(self, batch: BoardBatch, autocast: Autocast, hops: int) -> Tensor:
        """Return the loss of a lesson about the first ``hops`` hops; what it does not reach gets no gradient."""
        assert self.board is not None
        return lesson_loss(self.network, self.board, batch, autocast, hops)

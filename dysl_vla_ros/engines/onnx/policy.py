"""The reference family on ONNX Runtime: a ``StepPolicy`` of exported segments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dysl_vla_ros.engines.onnx.exported import HEAD, PREPARE, Export, run_name
from dysl_vla_ros.engines.onnx.pictures import to_square
from dysl_vla_ros.engines.onnx.sessions import Device, OnnxEngine, Segment
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.reference_config import FAMILY, ReferenceConfig, encode_words, instruction_warnings
from dysl_vla_ros.skipping.stack import StackResult

SAMPLE = (96, 96)  # height, width in px of an image to warm up with


@dataclass(frozen=True)
class OnnxContext:
    """What the layers need beside the hidden state, on the device."""

    token_mask: Any  # (1, T) bool
    attention: Any  # (1, 1, T, T) added to attention's products: 0, or -1e4 where not attended to


class OnnxReferencePolicy:
    """The reference policy; segments run on the device, actions come back from it."""

    family = FAMILY

    def __init__(
        self, config: ReferenceConfig, weights_hash: str, base_hash: str, export: Export,
        device: Device, open_segment: Callable[[str], Segment], weight_count: int = 0,
    ) -> None:  # fmt: skip
        """Open the segments of ``export`` by their names; ``weight_count``: values in the base's weights."""
        self.engine, self.weight_count = OnnxEngine(), weight_count
        self.config, self.weights_hash, self.base_hash = config, weights_hash, base_hash
        self.cameras = tuple(config.cameras)
        self.proprioception, self.action, self.instructions = config.proprioception, config.action, config.instructions
        self._device = device
        self._prepare, self._head = open_segment(PREPARE), open_segment(HEAD)
        self._runs = {first: open_segment(run_name(first, end)) for first, end in export.runs}
        lengths = {first: end - first for first, end in export.runs}
        self.run_lengths: Sequence[int] | None = [lengths.get(layer, 1) for layer in range(config.layers)]
        self.layers: Sequence[Callable[[Any, OnnxContext], Any]] = [
            self._layer(self._runs.get(layer)) for layer in range(config.layers)
        ]

    def _layer(self, run: Segment | None) -> Callable[[Any, OnnxContext], Any]:
        def call(hidden: Any, context: OnnxContext) -> Any:
            assert run is not None, "nothing can be decided in the middle of a run of layers"
            return run(hidden, context.attention)[0]

        return call

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Return a warning that names the words which the policy was not trained on."""
        return instruction_warnings(instruction, self.config)

    def sample(self) -> Observation:
        """Return grey images, zeros and the first instruction that is known."""
        return Observation.grey(self.cameras, SAMPLE, self.proprioception, self.instructions)

    def inputs(self, observation: Observation) -> list[Any]:
        """Return what enters the first segment: an image a camera, words, proprioception.

        Raises:
            ObservationError: see :meth:`Observation.served_to`.
            InstructionError: it cannot be read.
        """
        state = observation.served_to(self.cameras, self.proprioception)
        words = np.array([encode_words(observation.instruction, self.config)], np.int64)
        images = [to_square(observation.images[camera], size) for camera, size in self.config.cameras.items()]
        return [*images, words, state[None]]

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Any, OnnxContext]:
        """Embed one observation: (1, T, D)."""
        (observation,) = observations
        hidden, attention, mask = self._prepare(*(self._device.put(value) for value in self.inputs(observation)))
        return hidden, OnnxContext(mask, attention)

    def initial_state(self, batch: int = 1) -> None:
        """No state."""

    def noise(self, seeds: Sequence[int]) -> None:
        """Nothing is drawn."""

    def decode(
        self, result: StackResult, context: Any, state: None, noise: None, bridge: Any
    ) -> tuple[FloatArray, None]:
        """Return normalised actions (1, H, A), off the device."""
        return self._head(result.hidden)[0].numpy(), None

    def actions(self, normalised: FloatArray, context: Any) -> FloatArray:
        """Return (1, H, A): centre and scale of the action statistics."""
        return self.action.denormalise(normalised.astype(np.float32, copy=False))

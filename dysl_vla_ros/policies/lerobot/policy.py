"""What the families that LeRobot hosts share: loading, processors, the check against the library's own call.

A family says which class of the library it drives, how an observation is embedded, what its leading layers are, and how
the flow steps follow them. The library's own modules compute everything; none is patched or copied.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dysl_vla_ros.errors import CheckpointError, ContractError, InstructionError, ObservationError, SettingError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.contract_meaning import Meaning, contract_draft, meaning_of
from dysl_vla_ros.policies.identity import hash_of
from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.policies.lerobot.folder import ACTION, STATE, WEIGHTS, LeRobotFolder, center_and_scale, read_folder
from dysl_vla_ros.policies.lerobot.keys import LayerKeys
from dysl_vla_ros.policies.lerobot.library import (
    DTYPES,
    Keys,
    make_policy,
    make_processors,
    read_configuration,
    require_library,
    tokenizer_folder,
    versions,
)
from dysl_vla_ros.policies.lerobot.relative import relative_faults
from dysl_vla_ros.policy_options import AS_THE_FILES_SAY, PolicyOptions
from dysl_vla_ros.skipping.stack import Layer, StackResult, full_result
from dysl_vla_ros.skipping.streams import Bridge, Stream, follow, no_bridge

Walk = Callable[[Tensor, Callable[..., Tensor]], Tensor]
"""(hidden (B, T, D), (layer, hidden, past_key_values=) -> hidden) -> hidden: the expert's layers of a plan."""


@dataclass
class LeRobotContext:
    """What belongs to one :meth:`LeRobotPolicy.prepare`."""

    batch: Mapping[str, Any]  # what the library's pre-processor gives
    state: Tensor  # (B, P) as it was measured
    token_mask: Tensor | None = None  # (B, T) bool
    given: dict[str, Any] = field(default_factory=dict)  # what the family's layers need beside the hidden state
    kept: list[Any] = field(default_factory=list)  # (L,) what each leading layer left; overwritten by its next run
    noise: Any = None  # (B, H, A) that decoding will begin at, where the leading layers read it


class LeRobotPolicy(CommonPolicy):
    """A policy of LeRobot's as a :class:`~dysl_vla_ros.policies.interface.VlaPolicy`, but for what a family says."""

    family: str
    base_hash: str
    library: str  # module:class
    hub_name: str  # what the checkpoint has from a hub, in words
    tokenizer_files: tuple[str, ...] = ("tokenizer_config.json",)  # that model.tokenizer must have
    unused: tuple[str, ...] = ()  # tensors of the file that the library's loader leaves out
    steps_field: str  # of the library's configuration: the number of flow steps
    streams: tuple[Stream, ...]
    layers: Sequence[Layer]

    def __init__(self, folder: LeRobotFolder, meaning: Meaning, policy: Any, processors: tuple[Any, Any]) -> None:
        self.folder, self.policy, self.config = folder, policy, policy.config
        self.flow = policy.model
        self.preprocessor, self.postprocessor = processors
        self.cameras, self.proprioception, self.action = meaning.cameras, meaning.proprioception, meaning.action
        self._unit_sizes = meaning.unit_sizes
        self.instructions = ()
        self.device = next(policy.parameters()).device
        self.weights_hash = folder.hashes[WEIGHTS]
        self._relative = next((it for it in self.preprocessor.steps if hasattr(it, "get_cached_state")), None)
        self._tokenizer = next(it for it in self.preprocessor.steps if hasattr(it, "input_tokenizer"))

    @classmethod
    def load(
        cls,
        checkpoint: Path,
        device: torch.device,
        dtype: torch.dtype | None,
        options: PolicyOptions = AS_THE_FILES_SAY,
    ) -> "LeRobotPolicy":
        """Load a folder, everything checked before and after the library reads it, and held against its own call.

        Random state is as before. See :func:`~dysl_vla_ros.policies.registry.load_policy` for arguments and errors.
        """
        folder = read_folder(checkpoint)
        options.require_weights(folder.hashes[WEIGHTS], str(checkpoint / WEIGHTS))
        require_library(checkpoint)
        if dtype not in DTYPES:
            raise SettingError(f"model.dtype: {cls.family} computes in float32 or bfloat16, not in {dtype}")
        tokenizer = tokenizer_folder(options, cls.tokenizer_files, cls.hub_name)
        changed: dict[str, Any] = {"device": str(device)}
        if options.flow_steps:
            changed[cls.steps_field] = options.flow_steps
        configuration = read_configuration(folder, changed | cls.changes(folder, dtype, tokenizer))
        meaning = meaning_of(folder, options.robot, configuration.chunk_size)
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            module, _, name = cls.library.partition(":")
            kind = getattr(importlib.import_module(module), name)
            loaded = make_policy(folder, configuration, kind, cls.hub_name, Keys(cls.renamed, cls.unused))
            cls.convert(loaded, folder, dtype)
            processors = make_processors(folder, str(device), tokenizer, cls.hub_name)
            policy = cls(folder, meaning, loaded, processors)
            if faults := relative_faults(policy._relative, meaning):
                raise ContractError("; ".join(faults), contract_draft(folder, options.robot, configuration.chunk_size))
            policy.base_hash = _base_hash(policy, tokenizer)
            policy.check_against_library()
        return policy

    # -- what a family says ------------------------------------------------------------------------------------------

    @classmethod
    def changes(cls, folder: LeRobotFolder, dtype: torch.dtype | None, tokenizer: str) -> dict[str, Any]:
        """Return fields of the library's configuration to replace, for this machine and the user's wishes."""
        raise NotImplementedError

    @classmethod
    def convert(cls, policy: Any, folder: LeRobotFolder, dtype: torch.dtype | None) -> None:
        """Cast what the library's loader does not: nothing, in most families."""

    @classmethod
    def renamed(cls, policy: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return a file's tensors by the names that the library's loader gives them."""
        rename = getattr(policy, "_fix_pytorch_state_dict_keys", None)
        return rename(tensors, policy.config) if rename else tensors

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return modules by part, for the count of weights; ``stack`` are the leading layers'."""
        raise NotImplementedError

    def embed(self, context: LeRobotContext) -> Tensor:
        """Do everything before the stack: return its input (B, T, D), and put into ``context`` what layers need."""
        raise NotImplementedError

    def flow_step(self, context: LeRobotContext, walk: Walk) -> tuple[Callable[..., Tensor], dict[str, Any]]:
        """Return the library's flow step, its expert's layers replaced by ``walk``, and what it takes beside x_t."""
        raise NotImplementedError

    # -- what all of them do -----------------------------------------------------------------------------------------

    def check_instruction(self, instruction: str) -> tuple[str, ...]:
        """Refuse an empty instruction; warn where its end is not read."""
        if not instruction.strip():
            raise InstructionError("the instruction is empty; say what is to be done")
        count, most = len(self._tokenizer.input_tokenizer(instruction)["input_ids"]), self._tokenizer.max_length
        return (f"the instruction has {count} tokens, the policy reads the first {most}",) if count > most else ()

    def sample(self) -> Observation:
        """Return grey images of the sizes that the checkpoint names, and the state's centre."""
        images = {name: np.full((*self.folder.cameras[name][-2:], 3), 128, dtype=np.uint8) for name in self.cameras}
        center, _ = center_and_scale(self.folder.modes[STATE], self.folder.statistics[STATE], self.folder.state_size)
        return Observation(images, np.array(center, dtype=np.float32), "pick up the object")

    def prepare(self, observations: Sequence[Observation], noise: Any = None) -> tuple[Tensor, LeRobotContext]:
        """Turn observations into tensors as the library's own control loop does, and embed them: (B, T, D)."""
        for observation in observations:
            self.check_instruction(observation.instruction)
        frames = [self._frame(observation) for observation in observations]
        together: dict[str, Any] = {name: torch.cat([frame[name] for frame in frames]) for name in self._keys}
        together["task"] = [observation.instruction for observation in observations]
        state = together[STATE]
        context = LeRobotContext(self.preprocessor(together), state, kept=[None] * len(self.layers), noise=noise)
        return self.embed(context), context

    @staticmethod
    def words(context: LeRobotContext) -> tuple[Tensor, Tensor]:
        """Return the words' tokens (B, W) and which of them are real."""
        return context.batch["observation.language.tokens"], context.batch["observation.language.attention_mask"]

    @property
    def _keys(self) -> tuple[str, ...]:
        return (*self.folder.cameras, STATE)

    def _frame(self, observation: Observation) -> dict[str, Any]:
        from lerobot.policies.utils import prepare_observation_for_inference

        values = self.require_served(observation).copy()
        if getattr(self.config, "resize_imgs_with_padding", ...) is None:
            self._require_sizes(observation)
        # copies: a picture may be a read-only view of memory that is written again after this step
        images = {camera: np.array(observation.images[camera], order="C") for camera in self.folder.cameras}
        return prepare_observation_for_inference(images | {STATE: values}, self.device, observation.instruction)

    def _require_sizes(self, observation: Observation) -> None:
        """Refuse a picture of another size than in training, where nothing resizes it."""
        for name, (_, *trained) in self.folder.cameras.items():
            found = list(observation.images[name].shape[:2])
            if found != trained:
                raise ObservationError(
                    f"the picture of {name} is {found[1]} x {found[0]} px; this checkpoint resizes none and was "
                    f"trained on {trained[1]} x {trained[0]}"
                )

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return (B, H, largest A) from each seed, drawn on the CPU: the same on every device."""
        shape = (self.config.chunk_size, self.config.max_action_dim)
        drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(seed % 2**63)) for seed in seeds]
        return torch.stack(drawn).to(self.device)

    def have_layers(self, lead: Callable[..., Tensor], count: int, width: int, expert_width: int) -> None:
        """Note layers and streams: ``lead(index, hidden, context)`` runs a leading layer."""
        self.layers = [partial(lead, index) for index in range(count)]
        steps = getattr(self.config, self.steps_field)
        self.streams = (Stream("stack", width), Stream("expert", expert_width, steps))

    def keep(self, index: int, hidden: Tensor, context: LeRobotContext, run: Callable[..., Tensor]) -> Tensor:
        """Run a leading layer with a cache of its own, which stays in the context.

        Of the last layer only keys and values are wanted: what would come after them is not computed.

        Args:
            index: of the layer.
            hidden: (B, T, D) that enters it.
            context: of the observations.
            run: the layer, which takes ``past_key_values``.
        """
        kept = context.kept[index] = LayerKeys()
        if index < len(self.layers) - 1:
            return run(past_key_values=kept)
        kept.fill(partial(run, past_key_values=kept))
        return hidden

    def attention(self, context: LeRobotContext, real: Tensor, order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the prefix's mask (B, T, T) and positions (B, T) as the library makes them, and note real tokens."""
        from lerobot.policies.common.vla_utils import make_att_2d_masks

        context.token_mask = real
        return make_att_2d_masks(real, order), torch.cumsum(real, dim=1) - 1

    def decode(
        self, result: StackResult, context: Any, state: None, noise: Tensor, bridge: Bridge
    ) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A): the library's flow steps, the expert following the plan in each."""
        from lerobot.policies.common.flow_matching import euler_integrate

        velocity, steps = self._velocity(result, context, bridge), getattr(self.config, self.steps_field)
        actions: Tensor = euler_integrate(velocity, noise, steps)
        return self.unpadded(actions[..., : self.action.dimensions]), None

    def halfway(
        self, result: StackResult, context: Any, state: None, noise: Tensor, moment: float, bridge: Bridge
    ) -> tuple[Tensor, float]:
        """Return (B, H, largest A) before the flow step at ``moment``, and its time, from 1.0 (noise) down."""
        velocity, steps = self._velocity(result, context, bridge), getattr(self.config, self.steps_field)
        taken = min(int(moment * steps), steps - 1)
        actions, times = noise, [1.0 - step / steps for step in range(taken + 1)]
        for time in times[:-1]:
            actions = actions - velocity(actions, self._time(time, noise)) / steps
        return actions, times[-1]

    def probe(
        self, result: StackResult, context: Any, state: None, noise: Tensor, halfway: tuple[Tensor, float],
        bridge: Bridge,
    ) -> Tensor:  # fmt: skip
        """Return the velocity (B, H, A) of normalised actions, turned as they are: noise less actions."""
        actions, time = halfway
        flow = self._velocity(result, context, bridge)(actions, self._time(time, noise))
        return flow[..., : self.action.dimensions]

    @staticmethod
    def _time(time: float, noise: Tensor) -> Tensor:
        return torch.tensor(time, dtype=torch.float32, device=noise.device).expand(len(noise))

    def _velocity(self, result: StackResult, context: Any, bridge: Bridge) -> Callable[[Tensor, Tensor], Tensor]:
        """Return (actions (B, H, largest A), time (B,)) -> velocity: the library's flow step over a plan."""

        def walk(hidden: Tensor, layer: Callable[..., Tensor]) -> Tensor:
            def run(index: int, entering: Tensor) -> Tensor:
                kept = context.kept[index]
                after = layer(index, entering, past_key_values=kept)
                kept.crop(context.token_mask.shape[1])  # what the leading layer left stays as it was
                return after

            return follow(result.plan, hidden, run, "expert", bridge)

        step, given = self.flow_step(context, walk)
        return lambda actions, time: step(x_t=actions, timestep=time, **given)

    def unpadded(self, actions: Tensor) -> Tensor:
        """Return what the library makes of its actions before its post-processor: nothing, in most families."""
        return actions

    def actions(self, normalised: Tensor, context: Any) -> FloatArray:
        """Return (B, H, A) by the library's post-processor."""
        if self._relative is not None:  # the step remembers one state: that of this observation
            from lerobot.lerobot_types import TransitionKey

            self._relative({TransitionKey.OBSERVATION: {STATE: context.state}})
        values: FloatArray = self.postprocessor(normalised).float().cpu().numpy()
        return values * np.array(self._unit_sizes, np.float32) if self._unit_sizes else values

    def parts(self) -> Mapping[str, Sequence[Tensor]]:
        """Return the weights by part, each once; ``other`` is what no part has."""
        found: dict[str, Sequence[Tensor]] = {}
        taken: set[int] = set()
        for name, modules in (*self.modules().items(), ("other", [self.policy])):
            own = {id(weight): weight for module in modules for weight in module.parameters()}
            found[name] = tuple(weight for key, weight in own.items() if key not in taken)
            taken |= own.keys()
        return {name: weights for name, weights in found.items() if weights}

    def collate(self, contexts: Sequence[LeRobotContext]) -> LeRobotContext:
        """Refuse: nothing is learned from such a policy yet."""
        raise CheckpointError(
            f"{self.folder.path}: adapters of a {self.family} policy cannot be trained by this version"
        )

    def reference_chunk(self, observation: Observation, seed: int) -> Tensor:
        """Return the normalised actions (B, H, A) of the library's own call, its noise drawn from the same seed."""
        self.policy.reset()
        batch = self.preprocessor({**self._frame(observation), "task": [observation.instruction]})
        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            chunk = self.library_chunk(batch, seed)
        self.policy.reset()
        return chunk

    def library_chunk(self, batch: Mapping[str, Any], seed: int) -> Tensor:
        """Return what the library's own call makes of a batch: with our noise, where it takes any."""
        chunk: Tensor = self.policy.predict_action_chunk(batch, noise=self.noise([seed]))
        return chunk

    def check_against_library(self) -> None:
        """Compare full depth through the seam with the library's own call: every bit must be the same.

        Raises:
            CheckpointError: it is not, or the library refuses what its own checkpoint says; names the versions.
        """
        random = np.random.default_rng(1)
        sample = self.sample()
        images = {name: random.integers(0, 256, it.shape, dtype=np.uint8) for name, it in sample.images.items()}
        observation = Observation(images, sample.proprioception, sample.instruction)
        try:
            with torch.inference_mode():
                noise = self.noise([1])
                hidden, context = self.prepare([observation], noise)
                for layer in self.layers:
                    hidden = layer(hidden, context)
                own, _ = self.decode(full_result(hidden, len(self.layers)), context, None, noise, no_bridge)
                theirs = self.reference_chunk(observation, 1)
                physical = self.actions(own, context)
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError):
                raise CheckpointError(
                    f"{self.folder.path}: out of memory on {self.device} in a first inference"
                ) from error
            raise CheckpointError(f"{self.folder.path}: {type(error).__name__}: {error} ({versions()})") from error
        wanted = (1, self.action.horizon, self.action.dimensions)
        if tuple(own.shape) != wanted or physical.shape != wanted:
            raise CheckpointError(f"{self.folder.path}: actions of shape {list(own.shape)}, expected {list(wanted)}")
        if not torch.equal(own, theirs):
            apart = float((own - theirs).abs().max())
            raise CheckpointError(
                f"{self.folder.path}: {self.family} through our loop differs from the library's predict_action_chunk "
                f"by up to {apart:.3g}; these versions are not served: {versions()}"
            )


def _base_hash(policy: LeRobotPolicy, tokenizer: str) -> str:
    """Return the hash of all that decides the motion: the files, the tokenizer, what the user says of the robot."""
    beside = sorted(Path(tokenizer).glob("*.json")) if tokenizer else []
    spec, state = policy.action, policy.proprioception
    return hash_of(
        {
            "family": policy.family,
            "files": dict(sorted(policy.folder.hashes.items())),
            "tokenizer": {path.name: sha256(path) for path in beside},
            "flow_steps": getattr(policy.config, policy.steps_field),
            "dtype": str(policy.dtype),
            "action": [spec.kind, spec.names, spec.units, spec.gripper, spec.low, spec.high, spec.time_step],
            "state": [state.names, state.units, state.low, state.high],
            ACTION: policy.folder.action_size,
            **({"unit_sizes": policy._unit_sizes} if policy._unit_sizes else {}),
        }
    )

"""X-VLA of LeRobot's: one stack that runs in every flow step, over actions, what Florence-2 read, and soft prompts.

The first flow step leads, later ones repeat its plan with adapters of their own. It begins at the noise.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dysl_vla_ros.policies.interface import CommonPolicy
from dysl_vla_ros.policies.lerobot import florence_keys
from dysl_vla_ros.policies.lerobot.folder import LeRobotFolder
from dysl_vla_ros.policies.lerobot.policy import LeRobotContext, LeRobotPolicy
from dysl_vla_ros.policies.module_view import view
from dysl_vla_ros.skipping.stack import StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream, follow

FOLLOWER = "later_steps"  # a stream


class XVla(LeRobotPolicy):
    """Every flow step runs the same blocks over all tokens."""

    family = "xvla"
    library = "lerobot.policies.xvla.modeling_xvla:XVLAPolicy"
    hub_name = "the tokenizer facebook/bart-large"
    steps_field = "num_denoising_steps"
    unused = florence_keys.UNUSED
    halfway, probe = CommonPolicy.halfway, CommonPolicy.probe  # each step gives actions, no velocity

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.transformer, self.dtype = self.flow.transformer, self.flow._get_target_dtype()
        self.layers = [partial(self._block, index) for index in range(len(self.transformer.blocks))]
        self.steps, width = max(1, self.config.num_denoising_steps), self.transformer.hidden_size
        followers = (Stream(FOLLOWER, width, self.steps - 1),) if self.steps > 1 else ()
        self.streams = (Stream("stack", width), *followers)

    @classmethod
    def changes(cls, folder: LeRobotFolder, dtype: torch.dtype | None, tokenizer: str) -> dict[str, Any]:
        """The library casts the weights itself."""
        return {"dtype": str(dtype).removeprefix("torch.")} if dtype else {}

    @classmethod
    def renamed(cls, policy: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Florence-2's names, of either layout."""
        return florence_keys.renamed(tensors)

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the parts."""
        return {"vision": [self.flow.vlm.vision_tower], "language": [self.flow.vlm], "stack": [self.transformer.blocks]}

    def noise(self, seeds: Sequence[int]) -> Tensor:
        """Return (B, H, A) as the library draws it behind ``torch.manual_seed`` of each seed, on the same device."""
        draw = partial(torch.randn, self.config.chunk_size, self.flow.dim_action, device=self.device, dtype=self.dtype)
        return torch.stack([draw(generator=torch.Generator(self.device).manual_seed(seed % 2**63)) for seed in seeds])

    def embed(self, context: LeRobotContext) -> Tensor:
        """Read images and words once; enter the first flow step."""
        assert context.noise is not None, "the leading stack begins at the noise: prepare(observations, noise)"
        given = self.policy._build_model_inputs(context.batch)
        images = given.pop("image_input").to(self.dtype)
        read = self.flow.forward_vlm(given.pop("input_ids"), images, given.pop("image_mask"))
        context.given = given | read | {"proprio": given["proprio"].to(self.dtype)}
        entering: dict[str, Tensor] = {}
        self._step(context, context.noise, 1.0, lambda hidden: entering.setdefault("stack", hidden))
        return entering["stack"]

    def _block(self, index: int, hidden: Tensor, context: LeRobotContext | None = None) -> Tensor:
        return self.transformer.blocks[index](hidden)

    def _step(self, context: LeRobotContext, at: Tensor, time: float, blocks: Callable[[Tensor], Tensor]) -> Tensor:
        """Return where a flow step at (B, H, A) points to, ``blocks`` in place of the library's."""
        moment = torch.full((len(at),), time).to(at)
        proprio, masked = self.flow.action_space.preprocess(context.given["proprio"], at)
        stepping = view(self.transformer, blocks=[blocks])
        return stepping.forward(**context.given | {"proprio": proprio, "action_with_noise": masked, "t": moment})

    def decode(self, result: StackResult, context: Any, state: None, noise: Any, bridge: Bridge) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A): the library's flow steps, the later ones following the first's plan."""
        walk = partial(follow, result.plan, run=self._block, stream=FOLLOWER, bridge=bridge)
        actions = self._step(context, noise, 1.0, lambda _: result.hidden)
        for time in (step / self.steps for step in range(self.steps - 1, 0, -1)):
            weight = torch.full((len(noise), 1, 1), time).to(noise)
            actions = self._step(context, noise * weight + actions * (1 - weight), time, walk)
        return self.flow.action_space.postprocess(actions), None

    def library_chunk(self, batch: Mapping[str, Any], seed: int) -> Tensor:
        """The library draws for itself, from torch's own random state."""
        torch.manual_seed(seed % 2**63)
        return self.policy.predict_action_chunk(batch)

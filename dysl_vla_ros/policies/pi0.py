"""pi0 and pi0.5 of LeRobot's: PaliGemma reads the observation once, a Gemma expert follows it in every flow step.

The library's models call their layers, so that a view with one layer in place of all of them is enough: of PaliGemma
one that keeps what layers are given, of the expert one that walks the plan.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dysl_vla_ros.policies.lerobot.folder import LeRobotFolder
from dysl_vla_ros.policies.lerobot.policy import LeRobotContext, LeRobotPolicy
from dysl_vla_ros.policies.module_view import view
from dysl_vla_ros.skipping.stack import StackResult
from dysl_vla_ros.skipping.streams import Bridge, Stream, follow


class Pi0(LeRobotPolicy):
    """The prefix of images and words leads; the expert, which reads the state, follows its plan in each flow step."""

    family = "pi0"
    library = "lerobot.policies.pi0.modeling_pi0:PI0Policy"
    hub_name = "the tokenizer google/paligemma-3b-pt-224"
    steps_field = "num_inference_steps"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.flow = self.policy.model
        self.joint = self.flow.paligemma_with_expert
        self._text, self._expert = self.joint.paligemma.model.language_model, self.joint.gemma_expert.model
        self.dtype = self._text.layers[0].self_attn.q_proj.weight.dtype
        self.streams = (
            Stream("stack", self._text.config.hidden_size),
            Stream("expert", self._expert.config.hidden_size, self.config.num_inference_steps),
        )
        self._leads, self._experts = ([_alone(it) for it in model.layers] for model in (self._text, self._expert))
        self.layers = [partial(self._lead, index) for index in range(len(self._leads))]

    @classmethod
    def changes(cls, folder: LeRobotFolder, dtype: torch.dtype | None, tokenizer: str) -> dict[str, Any]:
        """The library casts the weights itself."""
        return {"gradient_checkpointing": False} | ({"dtype": str(dtype).removeprefix("torch.")} if dtype else {})

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the parts."""
        model = self.joint.paligemma.model
        vision = [model.vision_tower, model.multi_modal_projector]
        return {"vision": vision, "stack": [self._text.layers], "expert": [self._expert]}

    def embed(self, context: LeRobotContext) -> Tensor:
        """Embed images and words; keep mask, positions and rotary embedding as the library gives them to its layers."""
        from lerobot.policies.common.vla_utils import make_att_2d_masks, prepare_attention_masks_4d

        batch, given = context.batch, context.given
        words = (batch["observation.language.tokens"], batch["observation.language.attention_mask"])
        hidden, real, order = self.flow.embed_prefix(*self.policy._preprocess_images(batch), *words)
        context.token_mask = real

        def keep(entering: Tensor, **more: Any) -> Tensor:
            given.update(more, entering=entering)
            return entering

        for model in (self._text, self._expert):
            model.config._attn_implementation = "eager"  # as the library's own call sets it, each time
        first = view(self._text.layers[0], forward=keep)
        view(self._text, layers=nn.ModuleList([first]), norm=lambda behind, _: (behind, None)).forward(
            inputs_embeds=hidden,
            attention_mask=prepare_attention_masks_4d(make_att_2d_masks(real, order)),
            position_ids=torch.cumsum(real, dim=1) - 1,
            use_cache=True,
        )
        return given.pop("entering")

    def _lead(self, index: int, hidden: Tensor, context: LeRobotContext) -> Tensor:
        more = {name: it for name, it in context.given.items() if name != "past_key_values"}
        return self.keep(index, hidden, context, partial(self._leads[index], hidden, **more))

    def _state(self, context: LeRobotContext) -> dict[str, Tensor]:
        """Return what each flow step takes beside the prefix."""
        return {"state": self.policy.prepare_state(context.batch)}

    def decode(
        self, result: StackResult, context: Any, state: None, noise: Tensor, bridge: Bridge
    ) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A): all flow steps through the library's own step."""

        def walk(entering: Tensor, past_key_values: Any, **more: Any) -> Tensor:
            def run(index: int, hidden: Tensor) -> Tensor:
                return self.follow_keys(index, context, partial(self._experts[index], hidden, **more))

            return follow(result.plan, entering, run, "expert", bridge)

        expert = view(self._expert, layers=nn.ModuleList([view(self._expert.layers[0], forward=walk)]))
        joint = view(self.joint, gemma_expert=view(self.joint.gemma_expert, model=expert))
        # the library asks a cache for its length alone: that of any layer that ran
        cache = context.kept[result.executed.index(True)]
        given = {"prefix_pad_masks": context.token_mask, "past_key_values": cache, **self._state(context)}
        return self.integrate(view(self.flow, paligemma_with_expert=joint).denoise_step, noise, given), None


class Pi05(Pi0):
    """pi0.5 reads the state as words of the prompt."""

    family = "pi05"
    library = "lerobot.policies.pi05.modeling_pi05:PI05Policy"

    def _state(self, context: LeRobotContext) -> dict[str, Tensor]:
        return {}


def _alone(layer: Any) -> Any:
    """Return a layer whose keys and values have the first place in a cache of their own."""
    return view(layer, self_attn=view(layer.self_attn, layer_idx=0))

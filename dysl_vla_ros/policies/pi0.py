"""pi0 and pi0.5 of LeRobot's: PaliGemma reads the observation once, a Gemma expert follows it in every flow step.

The library's models call their layers, so that a view with one layer in place of all of them is enough: of PaliGemma
one that keeps what layers are given, of the expert one that walks the plan.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dysl_vla_ros.policies.lerobot.folder import LeRobotFolder
from dysl_vla_ros.policies.lerobot.policy import LeRobotContext, LeRobotPolicy, Walk
from dysl_vla_ros.policies.module_view import view


class Pi0(LeRobotPolicy):
    """The prefix of images and words leads; the expert, which reads the state, follows its plan in each flow step."""

    family = "pi0"
    library = "lerobot.policies.pi0.modeling_pi0:PI0Policy"
    hub_name = "the tokenizer google/paligemma-3b-pt-224"
    steps_field = "num_inference_steps"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.joint = self.flow.paligemma_with_expert
        self._text, self._expert = self.joint.paligemma.model.language_model, self.joint.gemma_expert.model
        self.dtype = self._text.layers[0].self_attn.q_proj.weight.dtype
        self._leads, self._experts = (  # keys and values have the first place in a cache of their own
            [view(it, self_attn=view(it.self_attn, layer_idx=0)) for it in model.layers]
            for model in (self._text, self._expert)
        )
        widths = (self._text.config.hidden_size, self._expert.config.hidden_size)
        self.have_layers(self._lead, len(self._leads), *widths)

    @classmethod
    def changes(cls, folder: LeRobotFolder, dtype: torch.dtype | None, tokenizer: str) -> dict[str, Any]:
        """The library casts the weights itself."""
        return {"gradient_checkpointing": False} | ({"dtype": str(dtype).removeprefix("torch.")} if dtype else {})

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the parts."""
        vision = [self.joint.paligemma.model.vision_tower, self.joint.paligemma.model.multi_modal_projector]
        return {"vision": vision, "stack": [self._text.layers], "expert": [self._expert]}

    def embed(self, context: LeRobotContext) -> Tensor:
        """Embed images and words; keep mask, positions and rotary embedding as the library gives them to its layers."""
        from lerobot.policies.common.vla_utils import prepare_attention_masks_4d

        images, given = self.policy._preprocess_images(context.batch), context.given
        hidden, real, order = self.flow.embed_prefix(*images, *self.words(context))
        mask, positions = self.attention(context, real, order)

        def keep(entering: Tensor, past_key_values: Any, **more: Any) -> Tensor:
            given.update(more, entering=entering)
            return entering

        for model in (self._text, self._expert):
            model.config._attn_implementation = "eager"  # as the library's own call sets it, each time
        first = view(self._text.layers[0], forward=keep)
        view(self._text, layers=nn.ModuleList([first]), norm=lambda behind, _: (behind, None)).forward(
            inputs_embeds=hidden,
            attention_mask=prepare_attention_masks_4d(mask),
            position_ids=positions,
            use_cache=True,
        )
        return given.pop("entering")

    def _lead(self, index: int, hidden: Tensor, context: LeRobotContext) -> Tensor:
        return self.keep(index, hidden, context, partial(self._leads[index], hidden, **context.given))

    def _state(self, context: LeRobotContext) -> dict[str, Tensor]:
        """Return what each flow step takes beside the prefix."""
        return {"state": self.policy.prepare_state(context.batch)}

    def flow_step(self, context: LeRobotContext, walk: Walk) -> tuple[Callable[..., Tensor], dict[str, Any]]:
        """The library's step calls the expert's layers: here there is one, which walks."""

        def forward(entering: Tensor, past_key_values: Any, **more: Any) -> Tensor:
            return walk(entering, lambda index, hidden, **kept: self._experts[index](hidden, **kept, **more))

        expert = view(self._expert, layers=nn.ModuleList([view(self._expert.layers[0], forward=forward)]))
        joint = view(self.joint, gemma_expert=view(self.joint.gemma_expert, model=expert))
        # the library asks a cache for its length alone: that of any layer that ran
        cache = next(kept for kept in context.kept if kept is not None)
        given = {"prefix_pad_masks": context.token_mask, "past_key_values": cache, **self._state(context)}
        return view(self.flow, paligemma_with_expert=joint).denoise_step, given


class Pi05(Pi0):
    """pi0.5 reads the state as words of the prompt."""

    family = "pi05"
    library = "lerobot.policies.pi05.modeling_pi05:PI05Policy"

    def _state(self, context: LeRobotContext) -> dict[str, Tensor]:
        return {}

"""SmolVLA of LeRobot's: a language model reads the observation once, an action expert follows it in every flow step.

The library calls parts of its layers, no layers. So each layer of both becomes a model of its own: a view of the
library's joint model with one layer, a cache of its own and no norm behind it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dysl_vla_ros.policies.lerobot.folder import STATE, LeRobotFolder
from dysl_vla_ros.policies.lerobot.policy import LeRobotContext, LeRobotPolicy, Walk
from dysl_vla_ros.policies.module_view import view


class SmolVla(LeRobotPolicy):
    """The prefix of images, words and state leads; the expert follows its plan in each flow step."""

    family = "smolvla"
    library = "lerobot.policies.smolvla.modeling_smolvla:SmolVLAPolicy"
    hub_name = "its VLM (vlm_model_name in config.json): configuration, tokenizer and processor, no weights"
    tokenizer_files = ("config.json", "tokenizer_config.json", "processor_config.json")
    steps_field = "num_steps"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.joint = joint = self.flow.vlm_with_expert
        text = joint.get_vlm_model().text_model
        self.dtype = text.layers[0].self_attn.q_proj.weight.dtype
        pairs = list(zip(*joint.get_model_layers([text, joint.lm_expert]), strict=True))
        every, cross = self.config.self_attn_every_n_layers, "cross" in self.config.attention_mode
        own = [1 if not cross or (every > 0 and index % every == 0) else -1 for index in range(len(pairs))]
        self._leads = [_alone(joint, lead, None, 1) for lead, _ in pairs]
        self._experts = [_alone(joint, None, expert, kind) for (_, expert), kind in zip(pairs, own, strict=True)]
        self.have_layers(self._lead, len(pairs), joint.config.text_config.hidden_size, joint.expert_hidden_size)

    @classmethod
    def changes(cls, folder: LeRobotFolder, dtype: torch.dtype | None, tokenizer: str) -> dict[str, Any]:
        """No weights from the hub: all of them are in the folder."""
        return {"load_vlm_weights": False} | ({"vlm_model_name": tokenizer} if tokenizer else {})

    @classmethod
    def convert(cls, policy: Any, folder: LeRobotFolder, dtype: torch.dtype | None) -> None:
        """Cast the language model alone, as the library has it where it takes its weights from the hub."""
        published = torch.bfloat16 if folder.config.get("load_vlm_weights") else torch.float32
        policy.model.vlm_with_expert.vlm.to(dtype or published)

    def modules(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the parts."""
        vlm, expert = self.joint.get_vlm_model(), self.joint.lm_expert
        return {"vision": [vlm.vision_model, vlm.connector], "stack": [vlm.text_model.layers], "expert": [expert]}

    def embed(self, context: LeRobotContext) -> Tensor:
        """Embed images, words and state."""
        batch = self.policy._prepare_batch({**context.batch, STATE: context.batch[STATE].clone()})
        images, state = self.policy.prepare_images(batch), self.policy.prepare_state(batch)
        hidden, real, order = self.flow.embed_prefix(*images, *self.words(context), state=state)
        mask, positions = self.attention(context, real, order)
        context.given = {"attention_mask": mask, "position_ids": positions}
        return hidden

    def _lead(self, index: int, hidden: Tensor, context: LeRobotContext) -> Tensor:
        def run(past_key_values: Any) -> Tensor:
            return self._leads[index].forward(
                inputs_embeds=[hidden, None], past_key_values=past_key_values, use_cache=True, **context.given
            )[0][0]

        return self.keep(index, hidden, context, run)

    def flow_step(self, context: LeRobotContext, walk: Walk) -> tuple[Callable[..., Tensor], dict[str, Any]]:
        """The library's step calls one joint model: here it is one that walks."""

        def forward(inputs_embeds: list[Any], past_key_values: None, **more: Any) -> Any:
            def layer(index: int, hidden: Tensor, **kept: Any) -> Tensor:
                return self._experts[index].forward(inputs_embeds=[None, hidden], **kept, **more)[0][1]

            return [None, self.joint.lm_expert.norm(walk(inputs_embeds[1], layer))], None

        flow = view(self.flow, vlm_with_expert=view(self.joint, forward=forward))
        return flow.denoise_step, {"prefix_pad_masks": context.token_mask, "past_key_values": None}

    def unpadded(self, actions: Tensor) -> Tensor:
        """Turn joints as Aloha has them."""
        return self.policy._pi_aloha_encode_actions(actions) if self.config.adapt_to_pi_aloha else actions


def _alone(joint: Any, lead: Any, expert: Any, self_attention_every: int) -> Any:
    """Return the joint model with one layer of either stream alone, and without the norms behind all layers."""
    vlm, text = joint.vlm, joint.get_vlm_model().text_model
    reader = view(text, layers=[lead], norm=nn.Identity())
    return view(
        joint,
        vlm=view(vlm, model=view(vlm.model, text_model=reader)),
        lm_expert=view(joint.lm_expert, layers=[expert], norm=nn.Identity()),
        num_vlm_layers=1,
        num_expert_layers=1,
        self_attn_every_n_layers=self_attention_every,
    )

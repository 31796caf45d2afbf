"""SmolVLA of LeRobot's: a language model reads the observation once, an action expert follows it in every flow step.

The library calls parts of its layers, no layers. So each layer of both becomes a model of its own: a view of the
library's joint model with one layer, a cache of its own and no norm behind it.
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


class SmolVla(LeRobotPolicy):
    """The prefix of images, words and state leads; the expert follows its plan in each flow step."""

    family = "smolvla"
    library = "lerobot.policies.smolvla.modeling_smolvla:SmolVLAPolicy"
    hub_name = "its VLM (vlm_model_name in config.json): configuration, tokenizer and processor, no weights"
    tokenizer_files = ("config.json", "tokenizer_config.json", "processor_config.json")
    steps_field = "num_steps"

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.flow = self.policy.model
        self.joint = joint = self.flow.vlm_with_expert
        text = joint.get_vlm_model().text_model
        self.dtype = text.layers[0].self_attn.q_proj.weight.dtype
        pairs = list(zip(*joint.get_model_layers([text, joint.lm_expert]), strict=True))
        self.streams = (
            Stream("stack", joint.config.text_config.hidden_size),
            Stream("expert", joint.expert_hidden_size, self.config.num_steps),
        )
        every, cross = self.config.self_attn_every_n_layers, "cross" in self.config.attention_mode
        own = [1 if not cross or (every > 0 and index % every == 0) else -1 for index in range(len(pairs))]
        self._leads = [_alone(joint, lead, None, 1) for lead, _ in pairs]
        self._experts = [_alone(joint, None, expert, kind) for (_, expert), kind in zip(pairs, own, strict=True)]
        self.layers = [partial(self._lead, index) for index in range(len(pairs))]

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
        from lerobot.policies.common.vla_utils import make_att_2d_masks

        batch = self.policy._prepare_batch(
            {name: it.clone() if isinstance(it, Tensor) else it for name, it in context.batch.items()}
        )
        images, masks = self.policy.prepare_images(batch)
        words = (batch["observation.language.tokens"], batch["observation.language.attention_mask"])
        hidden, real, order = self.flow.embed_prefix(images, masks, *words, state=self.policy.prepare_state(batch))
        context.token_mask = real
        context.given = {
            "attention_mask": make_att_2d_masks(real, order), "position_ids": torch.cumsum(real, dim=1) - 1
        }  # fmt: skip
        return hidden

    def _lead(self, index: int, hidden: Tensor, context: LeRobotContext) -> Tensor:
        def run(past_key_values: Any) -> Tensor:
            return self._leads[index].forward(
                inputs_embeds=[hidden, None], past_key_values=past_key_values, use_cache=True, **context.given
            )[0][0]

        return self.keep(index, hidden, context, run)

    def decode(
        self, result: StackResult, context: Any, state: None, noise: Tensor, bridge: Bridge
    ) -> tuple[Tensor, None]:
        """Return normalised actions (B, H, A): all flow steps through the library's own step."""

        def walk(inputs_embeds: list[Any], past_key_values: None, **more: Any) -> Any:
            def run(index: int, hidden: Tensor) -> Tensor:
                call = partial(self._experts[index].forward, inputs_embeds=[None, hidden], **more)
                return self.follow_keys(index, context, lambda **kept: call(**kept)[0][1])

            hidden = follow(result.plan, inputs_embeds[1], run, "expert", bridge)
            return [None, self.joint.lm_expert.norm(hidden)], None

        flow = view(self.flow, vlm_with_expert=view(self.joint, forward=walk))
        given = {"prefix_pad_masks": context.token_mask, "past_key_values": None}
        actions = self.integrate(flow.denoise_step, noise, given)
        return (self.policy._pi_aloha_encode_actions(actions) if self.config.adapt_to_pi_aloha else actions), None


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

"""Real decoder stacks of transformers, small, with random weights: what the method's tests run on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor
from transformers import GemmaConfig, GemmaForCausalLM, LlamaConfig, LlamaModel

from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.stack import Layer
from dysl_vla_ros.skipping.streams import Stream

LAYERS, WIDTH, TOKENS, PADDING = 8, 64, 12, 3


@dataclass(frozen=True)
class Context:
    """What the model itself hands to each of its layers, and which tokens are real."""

    token_mask: Tensor  # (B, T) bool
    arguments: dict[str, Any]


class SmallStack:
    """A model, its layers bound to the way they are called, and a record of which of them ran."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model.eval().requires_grad_(False)
        self.calls: list[int] = []  # what hooks on the model's own layers saw
        for index, layer in enumerate(model.layers):
            layer.register_forward_hook(lambda *_, index=index: self.calls.append(index))
        self.layers: list[Layer] = [
            lambda hidden, context, layer=layer: layer(hidden, **context.arguments) for layer in model.layers
        ]

    def own_forward(self, embedded: Tensor, token_mask: Tensor) -> tuple[Tensor, Tensor, Context, Tensor]:
        """Run the model's own forward; return what leaves its last layer, what leaves its norm, and the stack's input.

        The input is a context and the hidden state (B, T, D) that enters the first layer.
        """
        seen: dict[str, Any] = {}

        def entering(_: torch.nn.Module, positional: tuple[Tensor, ...], named: dict[str, Any]) -> None:
            seen["hidden"], seen["arguments"] = positional[0].clone(), dict(named)

        def leaving(_: torch.nn.Module, positional: tuple[Tensor, ...]) -> None:
            seen["last"] = positional[0].clone()

        hooks = [
            self.model.layers[0].register_forward_pre_hook(entering, with_kwargs=True),
            self.model.norm.register_forward_pre_hook(leaving),
        ]
        with torch.no_grad():  # what inference mode makes cannot be trained through
            output = self.model(inputs_embeds=embedded, attention_mask=token_mask.long(), use_cache=False)
        for hook in hooks:
            hook.remove()
        self.calls.clear()
        return seen["last"], output.last_hidden_state, Context(token_mask, seen["arguments"]), seen["hidden"]


def llama_stack() -> SmallStack:
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=32, initializer_range=0.2,
    )  # fmt: skip
    return SmallStack(LlamaModel(config))


def gemma_stack() -> SmallStack:
    torch.manual_seed(2)
    config = GemmaConfig(
        hidden_size=WIDTH, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=4,
        num_key_value_heads=1, head_dim=16, vocab_size=32, initializer_range=0.2,
    )  # fmt: skip
    return SmallStack(GemmaForCausalLM(config).model)


STACKS: dict[str, Callable[[], SmallStack]] = {"llama": llama_stack, "gemma": gemma_stack}


def random_tokens(seed: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    """Return embedded tokens (B, T, D) and their mask (B, T); the last tokens are padding."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, TOKENS, dtype=torch.bool)
    mask[:, TOKENS - PADDING :] = False
    return torch.randn(batch, TOKENS, WIDTH, generator=generator), mask


STREAMS = (Stream("stack", WIDTH),)


def trained_like(
    partition: LayerPartition, streams: Sequence[Stream] = STREAMS, seed: int = 3, queries: int = 4
) -> DyslModules:
    """Return modules whose every parameter is random: adapters that are no identity, controllers of either mind."""
    modules = DyslModules(partition, streams, bottleneck=16, queries=queries, controller_width=8)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in modules.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return modules.eval().requires_grad_(False)


@st.composite
def partitions(draw: st.DrawFn, num_layers: int = LAYERS) -> LayerPartition:
    """Draw any valid partition of a stack."""
    inner = draw(st.sets(st.integers(1, num_layers - 2))) if num_layers > 2 else set()
    return LayerPartition(num_layers, tuple(sorted(inner | {0, num_layers - 1})))


def controller_logit(modules: DyslModules, layer: int, hidden: Tensor, token_mask: Tensor | None) -> Tensor:
    """Return what the controller of ``layer`` says (B,) of a hidden state."""
    return modules.controller(layer)(modules.summary(layer, hidden, token_mask))

"""The reference family's graphs: what ``policies.reference.ReferenceNetwork`` computes, node by node."""

from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.engines.onnx.exporting.graph import BOOL, FLOAT, INT, MICROSOFT, Graph
from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.policies.reference_config import PADDING, QUERIES, STEM_STRIDE, ReferenceConfig

GROUPS, GROUP_EPSILON, NORM_EPSILON = 8, 1e-5, 1e-6  # of torch's GroupNorm, of transformers' LlamaConfig
CONVOLUTIONS = ((2, 2), (2, 1), (2, 1), (3, 0))  # stride, padding
NOT_ATTENDED = -1e4
ROTARY_BASE = 10_000.0  # of transformers' LlamaConfig


@dataclass(frozen=True)
class Sizes:
    """Where the tokens of each kind lie."""

    config: ReferenceConfig

    @property
    def patches(self) -> int:
        """Number of image tokens, and the place of the first word."""
        return sum((size // STEM_STRIDE) ** 2 for size in self.config.cameras.values())

    @property
    def proprioception_at(self) -> int:
        """Place of the token of proprioception."""
        return self.patches + self.config.max_words

    @property
    def tokens(self) -> int:
        """All of them: T."""
        return self.proprioception_at + 1 + QUERIES

    @property
    def read(self) -> int:
        """How many of the last the last layer changes."""
        return self.tokens - self.proprioception_at

    @property
    def hidden(self) -> tuple[int, int, int]:
        """Shape of the hidden state: (1, T, D)."""
        return 1, self.tokens, self.config.width

    @property
    def attention(self) -> tuple[int, int, int, int]:
        """Shape of what is added to attention's products."""
        return 1, 1, self.tokens, self.tokens

    def rotary(self) -> tuple[FloatArray, FloatArray]:
        """Return cosines and sines of the rotary angles: (T, D / heads / 2) each."""
        half = self.config.width // self.config.heads // 2
        frequencies = ROTARY_BASE ** (-np.arange(half, dtype=np.float32) / half)
        angles = np.arange(self.tokens, dtype=np.float32)[:, None] * frequencies[None]
        return np.cos(angles), np.sin(angles)


def write_prepare(graph: Graph, sizes: Sizes) -> None:
    """Images, words and proprioception to the stack's input and what its layers need beside it."""
    config = sizes.config
    names = list(config.cameras)
    images = {name: graph.input(name, (1, 3, config.cameras[name], config.cameras[name]), FLOAT) for name in names}
    words = graph.input("words", (1, config.max_words), INT)
    state = graph.input("proprioception", (1, len(config.proprioception.names)), FLOAT)
    parts = [_stem(graph, images[name], name, config) for name in names]
    parts.append(graph.op("Gather", graph.weight("words.weight"), words))
    mean, std = (np.array(own, np.float32) for own in (config.proprioception_mean, config.proprioception_std))
    centred = graph.op("Sub", state, graph.constant(mean, as_is=True))
    scaled = graph.from_float(graph.op("Div", centred, graph.constant(std, as_is=True)))
    inner = graph.silu(graph.linear(scaled, "proprioception.0"))
    parts.append(graph.shaped(graph.linear(inner, "proprioception.2"), 1, 1, config.width))
    parts.append(graph.constant(np.zeros((1, QUERIES, config.width), np.float32)))
    hidden = graph.op("Add", graph.op("Concat", *parts, axis=1), graph.weight("places"))
    real = graph.op("Not", graph.op("Equal", words, graph.constant(np.array(PADDING, np.int64))))
    before, behind = np.ones((1, sizes.patches), bool), np.ones((1, 1 + QUERIES), bool)
    mask = graph.op("Concat", graph.constant(before), real, graph.constant(behind), axis=1)
    ends = [graph.constant(np.float32(value), as_is=True) for value in (0.0, NOT_ATTENDED)]
    open_to = graph.op("Where", mask, *ends)
    apart = np.zeros(sizes.attention, np.float32)
    if config.layout == "causal":
        apart[..., : sizes.patches, sizes.patches :] = NOT_ATTENDED
    attention = graph.op("Min", graph.shaped(open_to, 1, 1, 1, sizes.tokens), graph.constant(apart, as_is=True))
    graph.output("hidden", hidden, sizes.hidden)
    graph.output("attention", attention, sizes.attention, FLOAT)
    graph.output("token_mask", mask, (1, sizes.tokens), BOOL)


def write_layers(graph: Graph, sizes: Sizes, first: int, end: int) -> None:
    """Decoder layers ``first`` to ``end``, one after the other."""
    hidden, attention = graph.input("hidden", sizes.hidden), graph.input("attention", sizes.attention, FLOAT)
    for layer in range(first, end):
        hidden = _layer(graph, sizes, layer, hidden, attention)
    graph.output("onward", hidden, sizes.hidden)


def write_head(graph: Graph, sizes: Sizes) -> None:
    """What leaves the stack to normalised actions."""
    config, hidden = sizes.config, graph.input("hidden", sizes.hidden)
    asking = graph.sliced(hidden, sizes.tokens - QUERIES, sizes.tokens, 1)
    asking = graph.root_mean_square(asking, graph.weight("norm.weight"), NORM_EPSILON)
    inner = graph.silu(graph.linear(graph.shaped(asking, 1, QUERIES * config.width), "head.0"))
    shape = (1, config.action.horizon, config.action.dimensions)
    actions = graph.shaped(graph.linear(inner, "head.2"), *shape)
    graph.output("actions", graph.to_float(actions), shape, FLOAT)


def _stem(graph: Graph, image: str, camera: str, config: ReferenceConfig) -> str:
    """Return the tokens (1, N, D) of an image (1, 3, S, S) in 0..1."""
    value = graph.from_float(graph.op("Sub", image, graph.constant(np.float32(0.5), as_is=True)))
    for number, (stride, padding) in enumerate(CONVOLUTIONS):
        name = f"stems.{camera}.convolutions.{3 * number}"
        value = graph.op(
            "Conv", value, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias"),
            strides=[stride] * 2, pads=[padding] * 4,
        )  # fmt: skip
        if number < len(CONVOLUTIONS) - 1:
            value = _normed(graph, value, f"stems.{camera}.convolutions.{3 * number + 1}")
    side = config.cameras[camera] // STEM_STRIDE
    return graph.op("Transpose", graph.shaped(value, 1, config.width, side**2), perm=[0, 2, 1])


def _normed(graph: Graph, value: str, name: str) -> str:
    """Return what a GroupNorm and the GELU behind it make of (1, C, h, w)."""
    ones, zeros = graph.constant(np.ones(GROUPS, np.float32)), graph.constant(np.zeros(GROUPS, np.float32))
    grouped = graph.op("InstanceNormalization", graph.shaped(value, 1, GROUPS, -1), ones, zeros, epsilon=GROUP_EPSILON)
    same = graph.op("Reshape", grouped, graph.op("Shape", value))
    scale, shift = (graph.shaped(graph.weight(f"{name}.{own}"), 1, -1, 1, 1) for own in ("weight", "bias"))
    return graph.op("Gelu", graph.op("Add", graph.op("Mul", same, scale), shift))


def _layer(graph: Graph, sizes: Sizes, layer: int, hidden: str, attention: str) -> str:
    """Return what a decoder layer makes of the hidden state; the last one changes the last tokens only."""
    config, name = sizes.config, f"layers.{layer}"
    tokens = sizes.tokens
    normed = graph.root_mean_square(hidden, graph.weight(f"{name}.input_layernorm.weight"), NORM_EPSILON)
    weights = {part: f"{name}.self_attn.{part}_proj.weight" for part in "qkvo"}
    passed = ""
    if layer < config.layers - 1:
        joined = graph.op("MatMul", normed, graph.matrix(*(weights[part] for part in "qkv")))
        query, key, value = graph.ops("Split", 3, joined, axis=-1, num_outputs=3)
        first = 0
    else:
        first = tokens - sizes.read
        joined = graph.op("MatMul", normed, graph.matrix(weights["k"], weights["v"]))
        key, value = graph.ops("Split", 2, joined, axis=-1, num_outputs=2)
        query = graph.op("MatMul", graph.sliced(normed, first, tokens, 1), graph.matrix(weights["q"]))
        attention = graph.sliced(attention, first, tokens, 2)
        passed, hidden = graph.sliced(hidden, 0, first, 1), graph.sliced(hidden, first, tokens, 1)
    query, key = _rotated(graph, sizes, query, first), _rotated(graph, sizes, key, 0)
    attended = _attended(graph, sizes, query, key, value, attention)
    hidden = graph.op("Add", hidden, graph.op("MatMul", attended, graph.matrix(weights["o"])))
    normed = graph.root_mean_square(hidden, graph.weight(f"{name}.post_attention_layernorm.weight"), NORM_EPSILON)
    gate, up = (graph.op("MatMul", normed, graph.matrix(f"{name}.mlp.{own}_proj.weight")) for own in ("gate", "up"))
    down = graph.op("MatMul", graph.op("Mul", graph.silu(gate), up), graph.matrix(f"{name}.mlp.down_proj.weight"))
    hidden = graph.op("Add", hidden, down)
    return graph.op("Concat", passed, hidden, axis=1) if passed else hidden


def _rotated(graph: Graph, sizes: Sizes, value: str, first: int) -> str:
    """Return queries or keys (1, t, D) turned by their places, which begin at ``first``."""
    cosines, sines = (graph.constant(own) for own in sizes.rotary())
    places = graph.constant(np.array([first], np.int64))
    heads = sizes.config.heads
    return graph.op("RotaryEmbedding", value, places, cosines, sines, domain=MICROSOFT, num_heads=heads)


def _attended(graph: Graph, sizes: Sizes, query: str, key: str, value: str, attention: str) -> str:
    """Return attention (1, t, D) in float32, as ONNX Runtime computes it on a CPU, whatever the graph's numbers are."""
    parts = [graph.to_float(part) for part in (query, key, value)]
    attended = graph.op("MultiHeadAttention", *parts, "", "", attention, domain=MICROSOFT, num_heads=sizes.config.heads)
    return graph.from_float(attended)

"""The graphs of a DySL folder's modules: what ``skipping.modules.DyslModules`` computes, node by node."""

import numpy as np

from dysl_vla_ros.engines.onnx.exporting.graph import BOOL, FLOAT, Graph
from dysl_vla_ros.engines.onnx.exporting.reference import Sizes

NORM_EPSILON = 1e-6  # as skipping.modules has it


def write_decision(graph: Graph, sizes: Sizes, layer: int, block: int, queries: int, rank: int) -> None:
    """A block's pool and the controller of a skip point: the summary, and the logit of skipping."""
    hidden, mask = graph.input("hidden", sizes.hidden), graph.input("token_mask", (1, sizes.tokens), BOOL)
    _, tokens, width = sizes.hidden
    ones = graph.constant(np.ones(width, np.float32))
    real = graph.shaped(mask, 1, tokens, 1)
    scaled = graph.root_mean_square(hidden, ones, NORM_EPSILON)
    scaled = graph.op("Where", real, scaled, graph.constant(np.float32(0)))
    name = f"pools.{block}"
    if queries:
        products = graph.op("MatMul", graph.weight(f"{name}.queries"), graph.op("Transpose", scaled, perm=[0, 2, 1]))
        products = graph.op("Mul", products, graph.constant(np.float32(width**-0.5)))  # (1, Q, T)
        least = graph.constant(np.float32(-np.inf))
        products = graph.op("Where", graph.shaped(mask, 1, 1, tokens), products, least)
        pooled = graph.op("MatMul", graph.op("Softmax", products, axis=-1), scaled)
        flat = graph.shaped(pooled, 1, queries * width)
        if rank:
            flat = graph.linear(flat, f"{name}.mix.0", bias=False)
        vector = graph.linear(flat, f"{name}.mix.1" if rank else f"{name}.mix")
    else:
        axis = graph.constant(np.array([1], np.int64))
        count = graph.op("ReduceSum", graph.op("Cast", mask, to=graph.numbers), axis, keepdims=1)
        vector = graph.op("Div", graph.op("ReduceSum", scaled, axis, keepdims=0), count)
    inner = graph.silu(graph.linear(vector, f"controllers.{layer}.inner"))
    logit = graph.linear(inner, f"controllers.{layer}.outer")
    logit = graph.shaped(graph.op("Add", logit, graph.weight(f"controllers.{layer}.offset")), 1)
    graph.output("tokens", scaled, sizes.hidden)
    graph.output("vector", vector, (1, width))
    graph.output("logit", graph.to_float(logit), (1,), FLOAT)


def write_adapter(graph: Graph, sizes: Sizes, layer: int, queries: int) -> None:
    """What stands in for a block from ``layer`` on."""
    hidden, tokens = graph.input("hidden", sizes.hidden), graph.input("tokens", sizes.hidden)
    vector = graph.input("vector", (1, sizes.config.width))
    name = f"adapters.{layer}"
    narrow = graph.linear(tokens, f"{name}.down")
    if queries:
        narrow = graph.op("Add", narrow, graph.linear(vector, f"{name}.pooled", bias=False))
    graph.output("onward", graph.op("Add", hidden, graph.linear(graph.silu(narrow), f"{name}.up")), sizes.hidden)

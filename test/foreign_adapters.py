"""DySL folders that were made for another policy than the one that they lie beside."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dysl_vla_ros.errors import CheckpointError
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.streams import Stream
from tiny_checkpoint import make_dysl


def require_own_adapters_alone(policy: Any, checkpoint: Path, folder: Path) -> None:
    """Refuse a loader that takes adapters of another base, depth, width or number of streams, or not its own."""
    lead, *followers = policy.streams
    own = (policy.family, policy.weights_hash, len(policy.layers), policy.streams)
    wider, more = replace(lead, width=lead.width + 8), Stream("another", 16, 3)
    foreign: dict[str, tuple[tuple[Any, ...], str]] = {
        "base": ((policy.family, "ab" * 32, len(policy.layers), policy.streams), "config.json: base.sha256 is abab"),
        "depth": ((*own[:2], own[2] + 1, policy.streams), f"partition.num_layers is {own[2] + 1}, this checkpoint has"),
        "width": ((*own[:3], (wider, *followers)), "adapters.safetensors"),
        "a stream more": ((*own[:3], (*policy.streams, more)), "adapters.safetensors"),
    }
    if followers:
        narrow = replace(followers[0], width=followers[0].width - 8)
        foreign["a stream less"] = ((*own[:3], (lead,)), "adapters.safetensors")
        foreign["a follower's width"] = ((*own[:3], (lead, narrow)), "adapters.safetensors")
    for kind, (made_for, text) in foreign.items():
        path = make_dysl(folder / kind, *made_for)
        with pytest.raises(CheckpointError) as refused:
            Runtime.beside(policy, str(checkpoint), str(path))
        assert str(path) in str(refused.value) and text in str(refused.value), f"{kind}: {refused.value}"
        assert "dysl_vla distill" in str(refused.value), f"{kind} without a fix: {refused.value}"
    assert Runtime.beside(policy, str(checkpoint), str(make_dysl(folder / "own", *own))).dysl

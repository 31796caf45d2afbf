"""The families under test, and what every test of them needs: the contract, observations, hooks, plans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import tiny_pi0
import tiny_pi05
import tiny_smolvla
import tiny_xvla
import torch
from lerobot.policies.factory import make_pre_post_processors
from lerobot.policies.utils import prepare_observation_for_inference

from dysl_vla_ros.interfaces import Observation
from dysl_vla_ros.policies.registry import load_policy
from dysl_vla_ros.policy_options import PolicyOptions
from dysl_vla_ros.robot_contract import RobotContract
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition

CPU = torch.device("cpu")
JOINTS = ("pan", "lift", "elbow", "flex", "roll")
ROBOT = RobotContract(
    cameras={"observation.images.wrist": "/wrist/image_raw", "observation.images.top": "/top/image_raw"},
    state_names=(*JOINTS, "gripper.opening"),
    state_units=("deg", "deg", "deg", "range_100", "deg", "percent"),
    action_kind="joint_position",
    action_names=(*JOINTS, "jaw"),
    action_units=("deg", "deg", "deg", "range_100", "deg", "percent"),
    action_gripper="jaw",
    action_low=(0.0, 0.0, 0.0, -1.5, 0.0, 0.0),
    action_high=(0.0, 0.0, 0.0, 1.6, 0.0, 0.0),
    time_step=1 / 30,
)
PARTITION = LayerPartition(6, (0, 3, 5))


@dataclass(frozen=True)
class Family:
    write_hub: Callable[[Path], None]
    write: Callable[..., Any]  # (folder, hub) -> the policy that was saved
    library: Callable[[Path], Any]  # the library's own policy of a folder
    leads: Callable[[Any], Sequence[torch.nn.Module]]  # of our policy: one module in each leading layer
    experts: Callable[[Any], Sequence[torch.nn.Module]]
    passes: int  # of the following stream, at full depth
    behind_the_last_keys: Callable[[Any], torch.nn.Module] | None = None  # what nobody reads


def _smolvla(folder: Path) -> Any:
    return tiny_smolvla.SmolVLAPolicy.from_pretrained(folder)


def _pi0(tiny: Any, kind: Any) -> Family:
    return Family(
        tiny.write_hub,
        tiny.write,
        lambda folder: kind.from_pretrained(folder).eval(),
        lambda p: [it.self_attn.k_proj for it in p._text.layers],
        lambda p: [it.self_attn.q_proj for it in p._expert.layers],
        tiny.FLOW_STEPS,
        lambda p: p._text.layers[-1].mlp,
    )


FAMILIES = {
    "smolvla": Family(
        tiny_smolvla.write_hub,
        tiny_smolvla.write,
        _smolvla,
        lambda p: [it.self_attn.k_proj for it in p.flow.vlm_with_expert.get_vlm_model().text_model.layers],
        lambda p: [it.self_attn.q_proj for it in p.flow.vlm_with_expert.lm_expert.layers],
        tiny_smolvla.FLOW_STEPS,
        lambda p: p.flow.vlm_with_expert.get_vlm_model().text_model.layers[-1].mlp,
    ),
    "pi0": _pi0(tiny_pi0, tiny_pi0.pi0.PI0Policy),
    "pi05": _pi0(tiny_pi05, tiny_pi0.pi05.PI05Policy),
    "xvla": Family(  # one stack: its later passes follow the first
        tiny_xvla.write_hub,
        tiny_xvla.write,
        tiny_xvla.XVLAPolicy.from_pretrained,
        lambda p: [],
        lambda p: [it.attn.qkv for it in p.transformer.blocks],
        tiny_xvla.FLOW_STEPS - 1,
    ),
}


def load(folder: Path, robot: RobotContract = ROBOT, dtype: torch.dtype | None = None, **options: Any) -> Any:
    return load_policy(folder, CPU, dtype, PolicyOptions(robot, **options))


def said(**changed: Any) -> RobotContract:
    return replace(ROBOT, **changed)


def observation(seed: int = 0) -> Observation:
    random = np.random.default_rng(seed)
    sizes = {"observation.images.top": (48, 64, 3), "observation.images.wrist": (40, 36, 3)}
    images = {name: random.integers(0, 256, size, dtype=np.uint8) for name, size in sizes.items()}
    return Observation(images, random.normal(size=6, scale=20.0).astype(np.float32), "pick up the red cube")


@cache
def library_processors(policy: Any) -> Any:
    return make_pre_post_processors(policy.policy.config, str(policy.folder.path))


def library_actions(policy: Any, seen: Observation, seed: int, steps: int = 8) -> np.ndarray:
    """Return (H, A): what the library's control loop plays, by `select_action` and its processors."""
    own = policy.policy
    before, behind = library_processors(policy)
    own.model.sample_noise = lambda shape, device: policy.noise([seed])
    torch.manual_seed(seed)  # of a family that asks nobody for its noise
    own.reset()
    try:
        rows = []
        for _ in range(steps):
            raw = {name: np.array(image) for name, image in seen.images.items()}
            raw["observation.state"] = np.array(seen.proprioception)
            frame = before(prepare_observation_for_inference(raw, CPU, seen.instruction))
            rows.append(behind(own.select_action(frame)))
        return torch.cat(rows).float().numpy()
    finally:
        del own.model.sample_noise
        own.reset()


def modules(policy: Any, seed: int = 3) -> DyslModules:
    """Return modules that are no identity."""
    made = DyslModules(PARTITION, policy.streams, bottleneck=8, queries=2, controller_width=4)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return made.eval().requires_grad_(False).to(policy.device, policy.dtype)


def plans() -> list[tuple[int, ...]]:
    """Return every way to skip in the blocks of PARTITION: for each the layer from which on, one past it for none."""
    return list(product(*[range(first, end + 1) for first, end in PARTITION.blocks]))


class Calls:
    """How often each layer ran while the block did, as hooks on the library's own modules saw it."""

    def __init__(self, family: str, policy: Any) -> None:
        own = FAMILIES[family]
        self.leads, self.experts, self.behind = [0] * 6, [0] * 6, [0]
        behind = [own.behind_the_last_keys(policy)] if own.behind_the_last_keys else []
        pairs = [(self.leads, own.leads(policy)), (self.experts, own.experts(policy)), (self.behind, behind)]
        self._hooks = [
            module.register_forward_hook(lambda *_, counts=counts, index=index: self._count(counts, index))
            for counts, found in pairs
            for index, module in enumerate(found)
        ]

    def require(self, executed: Sequence[bool], passes: int) -> None:
        """Refuse counts other than one lead's pass and ``passes`` of the follower of the layers that ran."""
        if any(self.leads):
            assert self.leads == [int(ran) for ran in executed]
        else:  # the same layers lead and follow
            passes += 1
        assert self.experts == [passes * ran for ran in executed]
        assert self.behind == [0], "what comes after the last keys and values is not computed"

    @staticmethod
    def _count(counts: list[int], index: int) -> None:
        counts[index] += 1

    def __enter__(self) -> "Calls":
        return self

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

"""What a robot's cameras and people vary and recordings do not: mounting, light, noise, choice of words.

Pictures are (B, 3, S, S) in 0..1, float32; everything drawn comes from the given generator alone.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dysl_vla_ros.interfaces import FloatArray, Observation
from dysl_vla_ros.policies.reference_config import UNKNOWN

SHIFT = {"image": 4, "wrist_image": 2}  # px
SHIFT_SHARE = 1 / 24  # of a picture's shorter side, where cameras have other names and sizes than these
BRIGHTNESS = (0.7, 1.3)
NOISE = 0.03  # most of a picture's standard deviation, drawn anew for each
POSITION_NOISE = 0.003  # m
UNHEARD = 0.08  # share of the words that are made unknown, of those that the task can do without


def shift(pictures: Tensor, most: int, random: np.random.Generator) -> Tensor:
    """Shift each picture by up to ``most`` pixels, its edge repeated: the camera is never mounted quite the same."""
    height, width = pictures.shape[-2:]
    padded = functional.pad(pictures, (most,) * 4, mode="replicate")
    offsets = random.integers(0, 2 * most + 1, (len(pictures), 2))
    return torch.stack([p[:, y : y + height, x : x + width] for p, (y, x) in zip(padded, offsets, strict=True)])


def vary(
    pictures: Mapping[str, Tensor], random: np.random.Generator, most: Mapping[str, int] = SHIFT
) -> dict[str, Tensor]:
    """Shift, brighten or darken (one gain for all cameras of a frame) and add noise to each pixel; stays in 0..1.

    ``most``: pixels that a camera's pictures are shifted by at most.
    """
    count = len(next(iter(pictures.values())))
    gains = torch.from_numpy(random.uniform(*BRIGHTNESS, (count, 1, 1, 1)).astype(np.float32))
    varied = {}
    for camera, own in pictures.items():
        generator = torch.Generator(own.device).manual_seed(int(random.integers(1 << 62)))
        strengths = torch.from_numpy(random.uniform(0.0, NOISE, (count, 1, 1, 1)).astype(np.float32))
        noise = torch.randn(own.shape, generator=generator, device=own.device) * strengths.to(own.device)
        moved = shift(own, most[camera], random)
        varied[camera] = torch.addcmul(noise, moved, gains.to(own.device)).clamp_(0.0, 1.0)
    return varied


def seen_again(observation: Observation, random: np.random.Generator) -> Observation:
    """Return an observation as cameras mounted a little differently, in another light, would have seen it."""
    pictures = {
        camera: torch.tensor(own).permute(2, 0, 1)[None].float() / 255.0 for camera, own in observation.images.items()
    }
    most = {camera: round(SHIFT_SHARE * min(own.shape[-2:])) for camera, own in pictures.items()}
    varied = vary(pictures, random, most)
    images = {camera: (own[0].permute(1, 2, 0) * 255.0).round().byte().numpy() for camera, own in varied.items()}
    return replace(observation, images=images)


def with_variants(observations: Iterable[Observation], variants: int, seed: int = 0) -> Iterator[Observation]:
    """Yield each observation, and behind it so many ways of it to be seen again."""
    random = np.random.default_rng((seed, 7))
    for observation in observations:
        yield observation
        for _ in range(variants):
            yield seen_again(observation, random)


def move(proprioception: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return proprioception (B, P) with noise on the position, its first three columns."""
    moved = proprioception.copy()
    moved[:, :3] += random.normal(0.0, POSITION_NOISE, (len(moved), 3)).astype(moved.dtype)
    return moved


def mishear(words: NDArray[np.int64], needed: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Make some words of (B, W) unknown, never those that are ``needed`` (B, W): other people use other words."""
    return np.where((random.random(words.shape) < UNHEARD) & ~needed, UNKNOWN, words)

"""What a robot's cameras and people vary and recordings do not: mounting, light, noise, choice of words.

Pictures are (B, 3, S, S) in 0..1, float32; everything drawn comes from the given generator alone.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from dysl_vla_ros.interfaces import FloatArray
from dysl_vla_ros.policies.reference import UNKNOWN

SHIFT = {"image": 4, "wrist_image": 2}  # px
BRIGHTNESS = (0.7, 1.3)
NOISE = 0.03  # most of a picture's standard deviation, drawn anew for each
POSITION_NOISE = 0.003  # m
UNHEARD = 0.08  # share of the words that are made unknown, of those that the task can do without


def shift(pictures: Tensor, most: int, random: np.random.Generator) -> Tensor:
    """Shift each picture by up to ``most`` pixels, its edge repeated: the camera is never mounted quite the same."""
    size = pictures.shape[-1]
    padded = functional.pad(pictures, (most,) * 4, mode="replicate")
    offsets = random.integers(0, 2 * most + 1, (len(pictures), 2))
    return torch.stack([p[:, y : y + size, x : x + size] for p, (y, x) in zip(padded, offsets, strict=True)])


def vary(pictures: dict[str, Tensor], random: np.random.Generator) -> dict[str, Tensor]:
    """Shift, brighten or darken (one gain for all cameras of a frame) and add noise to each pixel; stays in 0..1."""
    count = len(next(iter(pictures.values())))
    gains = torch.from_numpy(random.uniform(*BRIGHTNESS, (count, 1, 1, 1)).astype(np.float32))
    varied = {}
    for camera, own in pictures.items():
        generator = torch.Generator(own.device).manual_seed(int(random.integers(1 << 62)))
        strengths = torch.from_numpy(random.uniform(0.0, NOISE, (count, 1, 1, 1)).astype(np.float32))
        noise = torch.randn(own.shape, generator=generator, device=own.device) * strengths.to(own.device)
        moved = shift(own, SHIFT[camera], random)
        varied[camera] = torch.addcmul(noise, moved, gains.to(own.device)).clamp_(0.0, 1.0)
    return varied


def move(proprioception: FloatArray, random: np.random.Generator) -> FloatArray:
    """Return proprioception (B, P) with noise on the position, its first three columns."""
    moved = proprioception.copy()
    moved[:, :3] += random.normal(0.0, POSITION_NOISE, (len(moved), 3)).astype(moved.dtype)
    return moved


def mishear(words: NDArray[np.int64], needed: NDArray[np.bool_], random: np.random.Generator) -> NDArray[np.int64]:
    """Make some words of (B, W) unknown, never those that are ``needed`` (B, W): other people use other words."""
    return np.where((random.random(words.shape) < UNHEARD) & ~needed, UNKNOWN, words)

"""Where the noise of a policy that draws some comes from: never from time, so that a replay gives the same bits."""

from dataclasses import dataclass

import numpy as np

from dysl_vla_ros.settings import ModelSettings


@dataclass(frozen=True)
class NoiseSettings:
    """How noise is drawn; the fields are those of ``model.noise`` and ``model.noise_seed``."""

    kind: str = "fresh"  # each inference its own; "fixed": one for the whole episode
    seed: int = 0

    @classmethod
    def from_settings(cls, model: ModelSettings) -> "NoiseSettings":
        """Take the noise's part of the ``model`` settings."""
        return cls(model.noise, model.noise_seed)


FRESH = NoiseSettings()


def noise_seed(settings: NoiseSettings, episode: int, inference: int) -> int:
    """Return what the noise of an inference is drawn from, 0 to 2^63 - 1.

    Args:
        settings: how noise is drawn.
        episode: number of the episode, 0 or more.
        inference: how many of the episode have succeeded before this one.
    """
    numbers = [settings.seed, episode, 0 if settings.kind == "fixed" else inference]
    high, low = np.random.SeedSequence(numbers).generate_state(2)
    return (int(high) << 31) ^ int(low)

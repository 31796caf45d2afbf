"""A run at full depth, kept in memory: what calibration measures and replays. From the simulator or from a bag."""

from dataclasses import dataclass

from dysl_vla_ros.interfaces import FloatArray, Observation


@dataclass(frozen=True)
class FullDepthRun:
    """One closed-loop episode at full depth."""

    observations: tuple[Observation, ...]  # one an inference
    chunks: FloatArray  # (inferences, H, A) physical units; the first m actions of each were played

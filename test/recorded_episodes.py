"""Made-up episode records for tests of summaries and reports: plausible, repeatable, no simulator."""

import io
import math
from collections.abc import Sequence

import numpy as np
from PIL import Image

from dysl_vla_ros.interfaces import SkipTrace, Timings
from dysl_vla_ros.records.trace import EpisodeRecord, InferenceRecord, Picture

LAYERS = 24
BLOCKS = ((1, 8), (9, 15), (16, 23))


def inference(
    time: float = 0.0,
    calls: int | None = None,
    verified: bool = False,
    verify_ms: float = 0.0,
    total_ms: float = 12.0,
    image_age: float = 30.0,
    seed: int = 0,
) -> InferenceRecord:
    """Make one inference; what is not given is drawn from the seed."""
    random = np.random.default_rng(seed)
    executed = np.ones(LAYERS, bool)
    skip_points = []
    for first, end in BLOCKS:
        point = int(random.integers(first, end + 1))
        skip_points.append(point if point < end else -1)
        executed[point:end] = verified
    draft = int(executed.sum())
    return InferenceRecord(
        time=time,
        trace=SkipTrace(
            executed=tuple(bool(flag) for flag in executed),
            layer_calls=draft if calls is None else calls,
            allow_points=tuple(int(random.integers(first, end + 1)) for first, end in BLOCKS),
            skip_points=tuple(skip_points),
            controller_outputs=tuple(float(value) for value in random.uniform(0, 1, len(BLOCKS))),
            continuity=float(-0.3 + 0.1 * math.sin(time * 3) + 0.02 * random.normal()),
            continuity_change=float(0.02 * random.normal()),
            candidate_change=float(0.02 * random.normal()),
            verified=verified,
            verify_reason="any drop" if verified else "",
            full_depth_reason="",
        ),
        timings=Timings(
            vision=2.0,
            stack=draft * 0.5,
            head=0.3,
            verify=verify_ms,
            total=total_ms + verify_ms,
            convert=0.2,
            transfer=0.6,
        ),
        image_age=image_age,
        missed_deadline=False,
        seam=0.01,
    )


def episode(
    task: str = "reach",
    instruction: str = "reach the red point",
    calls: Sequence[int] = (8, 9, 7, 24, 8),
    success: bool = True,
    seed: int = 0,
    pictures: int = 0,
) -> EpisodeRecord:
    """Make one episode of as many inferences as there are ``calls``, one each 50 ms."""
    return EpisodeRecord(
        task=task,
        instruction=instruction,
        seed=seed,
        blocks=BLOCKS,
        success=success,
        ticks=len(calls),
        seconds=0.05 * len(calls),
        inferences=[
            inference(
                time=0.05 * number,
                calls=count,
                verified=number % 11 == 7,
                verify_ms=6.0 * (number % 11 == 7),
                seed=seed * 1000 + number,
            )
            for number, count in enumerate(calls)
        ],
        pictures=[Picture(time=0.1 * number, jpeg=jpeg(number)) for number in range(pictures)],
    )


def jpeg(number: int, width: int = 320, height: int = 240) -> bytes:
    """Draw a picture with a gradient that moves with ``number``."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([(columns + 3 * number) % 256, rows % 256, np.full_like(rows, 90)], axis=-1).astype(np.uint8)
    target = io.BytesIO()
    Image.fromarray(pixels).save(target, "JPEG", quality=80)
    return target.getvalue()

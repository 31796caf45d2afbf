"""``episode.mp4``: what the arm did, with the instruction and the layers of each moment under the picture."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dysl_vla_ros.files import write_atomically
from dysl_vla_ros.records.trace import EpisodeRecord, InferenceRecord

FRAME_RATE = 10  # Hz, that of the pictures: the video runs in real time
WIDTH, PICTURE_HEIGHT, STRIP_HEIGHT = 640, 480, 96
_RAN, _VERIFIED, _SKIPPED, _INK, _FAINT = "#1f5fa8", "#d9730d", "#dfe4ea", "#1c2530", "#5d6875"
_HELD_FRAMES = 8  # the last picture of an episode stays so long


def write_video(path: Path, episodes: Sequence[EpisodeRecord]) -> bool:
    """Write the episodes one after another as H.264 in yuv420p, whole or not at all.

    Returns:
        Whether there was anything to write: episodes without pictures make no video.
    """
    shown = [episode for episode in episodes if episode.pictures]
    if shown:
        write_atomically(path, lambda temporary: _encode(temporary, shown))
    return bool(shown)


def _encode(path: Path, episodes: Sequence[EpisodeRecord]) -> None:
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, PICTURE_HEIGHT + STRIP_HEIGHT, "yuv420p"
        stream.thread_count = 1
        for episode in episodes:
            for pixels in frames(episode):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def frames(episode: EpisodeRecord) -> Iterator[NDArray[np.uint8]]:
    """Draw an episode's frames, each (PICTURE_HEIGHT + STRIP_HEIGHT, WIDTH, 3) rgb; the last one is held."""
    pixels = None
    for picture in episode.pictures:
        canvas = Image.new("RGB", (WIDTH, PICTURE_HEIGHT + STRIP_HEIGHT), "white")
        scene = Image.open(io.BytesIO(picture.jpeg)).resize((WIDTH, PICTURE_HEIGHT), Image.Resampling.BICUBIC)
        canvas.paste(scene, (0, 0))
        before = [inference for inference in episode.inferences if inference.time <= picture.time]
        over = before and before[-1] is episode.inferences[-1] and picture.time > episode.seconds
        _draw_strip(ImageDraw.Draw(canvas), episode, before[-1] if before else None, bool(over))
        pixels = np.asarray(canvas)
        yield pixels
    if pixels is not None:
        for _ in range(_HELD_FRAMES):
            yield pixels


def _draw_strip(
    draw: ImageDraw.ImageDraw, episode: EpisodeRecord, inference: InferenceRecord | None, over: bool
) -> None:
    """Draw instruction, figures and one cell a layer below the picture."""
    large, small = _font(19), _font(15)
    draw.text((14, PICTURE_HEIGHT + 10), episode.instruction, fill=_INK, font=large)
    if over:
        text, colour = ("success", _RAN) if episode.success else ("no success", _VERIFIED)
        draw.text((WIDTH - 14, PICTURE_HEIGHT + 11), text, fill=colour, font=large, anchor="ra")
    if inference is None:
        return
    trace = inference.trace
    cell = (WIDTH - 28) / trace.layers_total
    top = PICTURE_HEIGHT + 42
    for layer, ran in enumerate(trace.executed):
        left = 14 + layer * cell
        colour = _SKIPPED if not ran else _VERIFIED if trace.verified else _RAN
        draw.rectangle((left, top, left + cell - 3, top + 16), fill=colour)
    words = f"{trace.layer_calls} of {trace.layers_total} layers"
    words += ", verified at full depth" if trace.verified else ""
    draw.text((14, top + 24), words, fill=_FAINT, font=small)
    draw.text((WIDTH - 14, top + 24), f"{inference.timings.total:.1f} ms", fill=_FAINT, font=small, anchor="ra")


def _font(size: int) -> ImageFont.FreeTypeFont:
    """Return the font that comes with matplotlib: the same on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)

"""``dysl_vla doctor``: thin over :func:`dysl_vla_ros.doctor.registry.examine`."""

import argparse
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from dysl_vla_ros.errors import SettingError

LIVE = 5.0  # s
TOPIC = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "--live", nargs="?", type=float, const=LIVE, default=0.0, metavar="SECONDS",
        help=f"measure the cameras' rate and jitter for so long ({LIVE:g} where no number is given)",
    )  # fmt: skip
    parser.add_argument(
        "--image", action="append", default=[], metavar="TOPIC", help="camera to look at; more than once"
    )
    parser.add_argument("--checkpoint", type=Path, help="default: the running node's, else the one that is shipped")
    parser.add_argument(
        "--adapters", default="", help="DySL folder (default: the running node's, the checkpoint's own)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse a time that is none."""
    if not 0.0 <= arguments.live <= 3600.0:
        raise SettingError(f"--live must be from 0 to 3600 s, not {arguments.live}")
    for topic in arguments.image:
        if not TOPIC.fullmatch(topic):
            raise SettingError(f"--image {topic!r} is no name of a topic; expected one as /camera/color/image_raw")


def run(arguments: argparse.Namespace) -> int:
    """Print one line a check; return 1 where something is FAIL."""
    from dysl_vla_ros.doctor.examination import Examination, Options
    from dysl_vla_ros.doctor.registry import examine
    from dysl_vla_ros.doctor.report import show

    images = tuple(topic if topic.startswith("/") else f"/{topic}" for topic in arguments.image)
    options = Options(arguments.checkpoint, arguments.adapters, images, arguments.live)
    with _progress(arguments.live) as progress:
        findings = examine(Examination(options, progress=progress))
    return show(findings)


@contextlib.contextmanager
def _progress(seconds: float) -> Iterator[Callable[[float], None]]:
    """Show a bar of the seconds measured, on a terminal and where tqdm is installed."""
    if not seconds:
        yield lambda passed: None
        return
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda passed: None
        return
    bar_format = "{desc} {bar} {n:.1f} of {total:.0f} s"
    with tqdm(total=seconds, desc="measuring", leave=False, disable=None, bar_format=bar_format) as bar:

        def progress(passed: float) -> None:
            bar.update(min(passed, seconds - bar.n))

        yield progress

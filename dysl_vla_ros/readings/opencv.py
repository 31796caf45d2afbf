"""OpenCV and cv_bridge, loaded when the first picture needs them: a node that sees only rgb8 does without both."""

import functools
from collections.abc import Callable
from typing import Any

from dysl_vla_ros.errors import ObservationError


@functools.cache
def opencv() -> Any:
    """Return the module cv2.

    Raises:
        ObservationError: it is not installed; says what to do.
    """
    try:
        import cv2
    except ImportError as error:
        raise ObservationError(
            f"bayer, yuv and compressed images need OpenCV, which cannot be imported ({error}): install "
            "python3-opencv, or publish rgb8"
        ) from error
    return cv2


@functools.cache
def cv_bridge_conversion() -> Callable[[Any, str, str], Any] | None:
    """Return cv_bridge's conversion (array, encoding, encoding wanted) -> array; None where it is not installed.

    A cv_bridge that was built against another numpy fails at import with either error.
    """
    try:
        from cv_bridge.boost.cv_bridge_boost import cvtColor2
    except (ImportError, AttributeError):
        return None
    convert: Callable[[Any, str, str], Any] = cvtColor2
    return convert

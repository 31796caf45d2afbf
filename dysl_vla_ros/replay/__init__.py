"""A recording through the policy again: full depth and skipping on the same moments. No ROS."""

import sys
from types import ModuleType
from typing import Any


class _Replay(ModuleType):
    """This package, which is also the function ``dysl_vla_ros.replay``: both have the one name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Replay a recording: see :func:`dysl_vla_ros.replay.job.replay`."""
        from dysl_vla_ros.replay import job

        return job.replay(*args, **kwargs)


sys.modules[__name__].__class__ = _Replay

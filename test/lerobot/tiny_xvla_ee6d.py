"""A random X-VLA of absolute poses: two arms of ten values, as its published checkpoints give them."""

from functools import partial

import tiny_xvla

__all__ = ["write", "write_hub"]
write_hub, write = tiny_xvla.write_hub, partial(tiny_xvla.write, actions=tiny_xvla.POSES)

"""Which layers run in one inference: one rule a file, all behind :class:`dysl_vla_ros.skipping.stack.DepthRule`."""

from dysl_vla_ros.skipping.depth_rules.dysl import DyslRule
from dysl_vla_ros.skipping.depth_rules.fixed import FixedPlan
from dysl_vla_ros.skipping.depth_rules.full import FullDepth
from dysl_vla_ros.skipping.depth_rules.oracle import Oracle
from dysl_vla_ros.skipping.depth_rules.random import RandomSkipping
from dysl_vla_ros.skipping.depth_rules.static import StaticOnly

__all__ = ["DyslRule", "FixedPlan", "FullDepth", "Oracle", "RandomSkipping", "StaticOnly"]

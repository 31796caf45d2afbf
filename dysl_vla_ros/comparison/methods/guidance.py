"""``guidance``: every block is skipped from its allow point on, whatever controllers say."""

from dysl_vla_ros.comparison.methods.method import (
    Library,
    Matched,
    Method,
    MethodOptions,
    Prepared,
    loaded,
    trained,
)
from dysl_vla_ros.settings import RuntimeSettings
from dysl_vla_ros.skipping.depth_rules import FixedPlan


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = loaded(library, options)
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, points)
    return Prepared(runtime, settings, trained(dysl))


METHOD = Method("skips at every allow point, whatever controllers say", _prepare, guided=True)

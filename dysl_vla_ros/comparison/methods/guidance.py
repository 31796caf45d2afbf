"""``guidance``: every block is skipped from its allow point on, whatever controllers say."""

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, trained
from dysl_vla_ros.skipping.depth_rules import FixedPlan


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    runtime.rule_override = lambda points: FixedPlan(dysl.partition, dysl.modules, points)
    return Prepared(runtime, given.settings, trained(dysl))


METHOD = Method("skips at every allow point, whatever controllers say", _prepare, guided=True)

"""``verify``: the floor, and full depth where continuity would fall."""

from dataclasses import replace

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, trained
from dysl_vla_ros.skipping.depth_rules import StaticOnly


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    guidance = replace(given.settings.guidance, prior=False, verify=True, verify_on="any")
    return Prepared(runtime, replace(given.settings, guidance=guidance), trained(dysl, dysl.partition.floor))


METHOD = Method("the floor, and verification of any drop", _prepare)

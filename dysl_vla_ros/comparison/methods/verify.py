"""``verify``: the floor, and full depth where continuity would fall."""

from dataclasses import replace

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
from dysl_vla_ros.skipping.depth_rules import StaticOnly


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = loaded(library, options)
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    guidance = replace(settings.guidance, prior=False, verify=True, verify_on="any")
    return Prepared(runtime, replace(settings, guidance=guidance), trained(dysl, dysl.partition.floor))


METHOD = Method("the floor, and verification of any drop", _prepare)

"""``dysl``: what a robot runs: controllers, prior and verification under the settings given."""

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


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = loaded(library, options)
    return Prepared(runtime, settings, trained(dysl, controllers=True))


METHOD = Method("controllers, prior and verification, as calibrated", _prepare, guided=True)

"""``dysl``: what a robot runs: controllers, prior and verification under the settings given."""

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, trained


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    return Prepared(runtime, given.settings, trained(dysl, controllers=True))


METHOD = Method("controllers, prior and verification, as calibrated", _prepare, guided=True)

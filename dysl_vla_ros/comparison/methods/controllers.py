"""``controllers``: they alone decide, unguided."""

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, trained, unguided


def _prepare(given: MethodInputs) -> Prepared:
    runtime, dysl = given.loaded()
    return Prepared(runtime, unguided(given.settings), trained(dysl, controllers=True))


METHOD = Method("controllers alone, unguided", _prepare)

"""``full``: the base policy, every layer. What all others are measured against."""

from dataclasses import replace

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, Trained


def _prepare(given: MethodInputs) -> Prepared:
    runtime = given.library.with_adapters(given.options.checkpoint, given.options.adapters, given.engine)
    full = replace(given.settings, skipping=replace(given.settings.skipping, rule="full"))
    return Prepared(runtime, full, Trained(0, 0, 0.0))


METHOD = Method("every layer", _prepare, adapters=False)

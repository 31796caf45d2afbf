"""``static``: the floor: static layers and adapters in every inference."""

from dysl_vla_ros.comparison.methods.method import Method, MethodInputs, Prepared, trained, unguided
from dysl_vla_ros.skipping.depth_rules import StaticOnly


def at_floor(given: MethodInputs, adapters: str | None = None) -> Prepared:
    """Prepare the floor of a DySL folder, None: that of ``dysl``."""
    runtime, dysl = given.loaded(adapters)
    runtime.rule_override = lambda points: StaticOnly(dysl.partition, dysl.modules)
    return Prepared(runtime, unguided(given.settings), trained(dysl, dysl.partition.floor))


METHOD = Method("static layers and adapters, always", at_floor)

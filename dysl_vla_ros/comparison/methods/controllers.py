"""``controllers``: they alone decide, unguided."""

from dysl_vla_ros.comparison.methods.method import (
    Library,
    Matched,
    Method,
    MethodOptions,
    Prepared,
    loaded,
    trained,
    unguided,
)
from dysl_vla_ros.settings import RuntimeSettings


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime, dysl = loaded(library, options)
    return Prepared(runtime, unguided(settings), trained(dysl, controllers=True))


METHOD = Method("controllers alone, unguided", _prepare)

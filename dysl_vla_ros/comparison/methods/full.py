"""``full``: the base policy, every layer. What all others are measured against."""

from dataclasses import replace

from dysl_vla_ros.comparison.methods.method import Library, Matched, Method, MethodOptions, Prepared, Trained
from dysl_vla_ros.settings import RuntimeSettings


def _prepare(library: Library, options: MethodOptions, settings: RuntimeSettings, _: Matched) -> Prepared:
    runtime = library.with_adapters(options.checkpoint, options.adapters)
    full = replace(settings, skipping=replace(settings.skipping, rule="full"))
    return Prepared(runtime, full, Trained(0, 0, 0.0))


METHOD = Method("every layer", _prepare, adapters=False)

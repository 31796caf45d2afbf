"""A policy that can be stepped, from its folder."""

from typing import TYPE_CHECKING

from dysl_vla_ros.jobs.settings import AnyPath

if TYPE_CHECKING:
    from dysl_vla_ros.runtime.step import Runtime


def load(
    checkpoint: AnyPath,
    adapters: AnyPath = "",
    *,
    device: str = "cpu",
    dtype: str = "",
    threads: int = 1,
    runtime: str = "torch",
    export: AnyPath = "",
) -> "Runtime":
    """Load a base checkpoint and the DySL folder that belongs to it; ``step`` of the result computes one chunk.

    Args:
        checkpoint: folder of the base.
        adapters: DySL folder; "": the checkpoint's own ``dysl`` folder, full depth where it has none.
        device: where to compute: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: to compute in: ``float32``, ``bfloat16``, ``float16``; "": the checkpoint's own.
        threads: compute threads of this process; bits depend on it.
        runtime: what computes: ``torch``, or ``onnx`` from what `dysl_vla export` wrote.
        export: folder of that; "": where it is written by default.

    Raises:
        CheckpointError: either is missing, damaged or not calibrated, or they do not belong together.
        SettingError: the device is not there, or the dtype or runtime is none of these.
    """
    from dysl_vla_ros.runtime.step import Runtime
    from dysl_vla_ros.settings import ModelSettings, build

    build(ModelSettings, {"device": device, "dtype": dtype, "runtime": runtime})
    return Runtime.load(
        str(checkpoint), str(adapters), device, threads, dtype=dtype, engine=runtime, export=str(export)
    )

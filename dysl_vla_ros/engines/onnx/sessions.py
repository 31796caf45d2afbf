"""ONNX Runtime's sessions: on the device that was asked for or none, hidden states kept there by I/O binding.

Left to itself, ONNX Runtime computes on the CPU where a provider is missing or fails, and says so in a warning. Here
that is an error, before and after a session is made.
"""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from dysl_vla_ros.engines import ONNX
from dysl_vla_ros.engines.onnx.exported import AGAIN
from dysl_vla_ros.errors import CheckpointError, SettingError
from dysl_vla_ros.interfaces import FloatArray

CPU_PROVIDER, CUDA_PROVIDER = "CPUExecutionProvider", "CUDAExecutionProvider"
ONLY_ERRORS = 3  # of ONNX Runtime's log levels

_shared_threads: list[int] = []  # of this process's pool, once it is made: ONNX Runtime makes one, once


class Device:
    """Where sessions compute.

    Attributes:
        kind: "cpu" or "cuda", as ONNX Runtime's values have it.
        index: of the GPU.
        provider: the only one that computes.
    """

    def __init__(self, name: str, option: str = "model.device") -> None:
        """Take what ``model.device`` says, or another ``option``.

        Raises:
            SettingError: this ONNX Runtime has no provider for it, or is too old.
        """
        kind, _, index = name.partition(":")
        self.kind, self.index = kind, int(index or 0)
        self.provider = CUDA_PROVIDER if kind == "cuda" else CPU_PROVIDER
        self.options = {"device_id": str(self.index)} if kind == "cuda" else {}
        if not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):
            raise SettingError(
                f"the runtime is onnx, {sys.executable} has ONNX Runtime {onnxruntime.__version__}, too old; "
                "install 1.32, which needs Python 3.11 or later, there or in the Python that model.python names"
            )
        there = onnxruntime.get_available_providers()
        if self.provider not in there:
            raise SettingError(
                f"{option} is {name!r}, the ONNX Runtime here ({onnxruntime.__version__}) has {', '.join(there)}; "
                "install onnxruntime-gpu in place of onnxruntime, or compute on the cpu"
            )

    def put(self, values: NDArray[Any]) -> Any:
        """Return values as they are on the device; on a CPU they are not copied."""
        return onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values), self.kind, self.index)


class OnnxEngine:
    """ONNX Runtime as an :class:`~dysl_vla_ros.engines.engine.Engine`."""

    name = ONNX

    def computing(self) -> "nullcontext[None]":
        """Nothing is kept for learning anyway."""
        return nullcontext()

    def now(self) -> float:
        """Return the time in s; a segment has waited for its device when it returns."""
        return time.perf_counter()

    def numpy(self, values: FloatArray) -> FloatArray:
        """Return values, which have left the device, as float32."""
        return values.astype(np.float32, copy=False)


class Segment:
    """A graph that is ready to run: values on the device in, values on the device out. What it gave is not reused."""

    def __init__(self, session: Any, device: Device) -> None:
        """Run ``session`` on ``device``."""
        self._session, self._device = session, device
        self._binding = session.io_binding()
        self.inputs = tuple(own.name for own in session.get_inputs())
        self._outputs = tuple(own.name for own in session.get_outputs())

    def __call__(self, *values: Any) -> Sequence[Any]:
        """Run it; one value for each input, in their order."""
        binding, device = self._binding, self._device
        for name, value in zip(self.inputs, values, strict=True):
            binding.bind_ortvalue_input(name, value)
        binding.clear_binding_outputs()  # else what the last call gave is written over
        for name in self._outputs:
            binding.bind_output(name, device.kind, device.index)
        self._session.run_with_iobinding(binding)
        return binding.get_outputs()


class Sessions:
    """Opens graphs on one device; all share one pool of threads, as they run one after the other."""

    def __init__(self, device: Device, threads: int, weights: Mapping[str, Any]) -> None:
        """Compute in ``threads`` threads; ``weights``: the only files that graphs may name -> their bytes.

        Raises:
            SettingError: this process computes in another number of threads already.
        """
        self._device, self._threads, self._weights = device, threads, weights
        if threads > 1 or _shared_threads:
            _share(threads)

    def open(self, path: Path) -> Segment:
        """Load a graph.

        Raises:
            CheckpointError: ONNX Runtime refuses it; the message ends with its own words.
            SettingError: it would compute on another device than asked for.
        """
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ONLY_ERRORS
        if _shared_threads:
            options.use_per_session_threads = False
        else:
            options.intra_op_num_threads = options.inter_op_num_threads = self._threads
        # Given even where it is empty of what a graph names: then nothing that a graph names is looked for on the disk.
        names, files = list(self._weights) or [""], list(self._weights.values()) or [b""]
        options.add_external_initializers_from_files_in_memory(names, files, [len(file) for file in files])
        device = self._device
        try:
            session = onnxruntime.InferenceSession(
                path.read_bytes(),
                options,
                providers=[device.provider],
                provider_options=[device.options],
                enable_fallback=False,
            )
        except Exception as error:  # its exceptions have no base of their own
            raise CheckpointError(
                f"{path}: ONNX Runtime {onnxruntime.__version__} refuses it: {in_one_line(error)}; {AGAIN} with this "
                "version"
            ) from error
        if device.provider not in session.get_providers():
            raise SettingError(
                f"model.device is {device.kind}:{device.index}, and ONNX Runtime would compute on "
                f"{', '.join(session.get_providers())}; its CUDA libraries cannot be loaded, or there is no such GPU"
            )
        return Segment(session, device)


def in_one_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without lines and the places in its sources that it begins with."""
    said = " ".join(str(error).split())
    return re.sub(r"/onnxruntime_src/\S+ .*?\) (?=[A-Z])", "", said)[:500]


def _share(threads: int) -> None:
    """Make this process's pool.

    Raises:
        SettingError: there is one of another size.
    """
    if not _shared_threads:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _shared_threads.append(threads)
    if _shared_threads[0] != threads:
        raise SettingError(
            f"this process computes with ONNX Runtime in {_shared_threads[0]} threads, {threads} were asked for; "
            "ONNX Runtime has one pool a process: start another one"
        )

"""Where a policy computes: what is named and not there is refused with what is, never replaced."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dysl_vla_ros.engines.torch.devices import device_named, dtype_named
from dysl_vla_ros.errors import SettingError
from dysl_vla_ros.policies.checkpoint import read_tensors
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.settings import ModelSettings, build
from runtime_families import UNGUIDED, nothing, observation
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

ABSENT = f"cuda:{torch.cuda.device_count() + 3}"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch built for it")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkpoint = make_tiny_checkpoint(tmp_path_factory.mktemp("base"))
    make_tiny_dysl(checkpoint / "dysl", checkpoint)
    return checkpoint


def test_a_device_that_is_not_there_is_refused_with_those_that_are(checkpoint: Path) -> None:
    with pytest.raises(SettingError, match=rf"model.device is '{ABSENT}', this machine has cpu"):
        Runtime.load(str(checkpoint), "", ABSENT)
    assert device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "mps", "CPU", "cuda:0 "])
def test_what_is_no_device_is_refused_where_it_is_set(name: str) -> None:
    with pytest.raises(SettingError, match="model.device must be cpu, cuda or cuda:N"):
        build(ModelSettings, {"device": name})


@pytest.mark.parametrize("name", ["", "float32", "bfloat16", "float16"])
def test_policy_and_adapters_compute_in_the_numbers_that_are_named(checkpoint: Path, name: str) -> None:
    runtime = Runtime.load(str(checkpoint), "", dtype=name)
    wanted = dtype_named(name) or torch.float32
    assert runtime.policy.dtype == wanted and runtime.dysl is not None
    assert {weight.dtype for weight in runtime.dysl.modules.parameters()} == {wanted}
    chunk = runtime.step(observation(runtime.policy), nothing(runtime.policy), UNGUIDED).chunk
    assert chunk.actions.dtype == np.float32 and np.isfinite(chunk.actions).all()


def test_weights_are_read_in_the_numbers_that_are_named_and_never_made_wider_first(
    checkpoint: Path, tmp_path: Path
) -> None:
    wide = read_tensors(checkpoint / "model.safetensors")
    for dtype in (torch.float16, torch.bfloat16):
        narrow = read_tensors(checkpoint / "model.safetensors", dtype=dtype)
        assert all(torch.equal(narrow[name], value.to(dtype)) for name, value in wide.items())
    file, rows = tmp_path / "large.safetensors", 20_000
    save_file({"weight": torch.ones(rows, 1000, dtype=torch.float16)}, file)
    code = "import sys, torch; from dysl_vla_ros.policies.checkpoint import read_tensors; before = {peak}"
    code += "; kept = read_tensors(Path(sys.argv[1]), dtype=torch.float16); print({peak} - before)"
    code = "import resource; from pathlib import Path; " + code
    code = code.replace("{peak}", "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss")
    told = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    taken, size = 1024 * int(told.stdout), file.stat().st_size
    assert taken < 1.5 * size, f"{taken / size:.1f} times the file, which is to be mapped and looked at once"


def test_another_dtype_than_there_is_is_refused() -> None:
    with pytest.raises(SettingError, match="model.dtype must be one of"):
        build(ModelSettings, {"dtype": "int8"})


@needs_gpu
def test_a_gpu_gives_the_actions_of_the_cpu_but_for_rounding(checkpoint: Path) -> None:
    chunks = []
    for device in ("cpu", "cuda"):
        runtime = Runtime.load(str(checkpoint), "", device)
        runtime.warm_up()
        result = runtime.step(observation(runtime.policy), nothing(runtime.policy), UNGUIDED)
        assert result.timings.stack > 0.0
        chunks.append(runtime.policy.action.normalise(result.chunk.actions))
    np.testing.assert_allclose(*chunks, atol=1e-2)

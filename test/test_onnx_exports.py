"""`dysl_vla export`: what it writes equals torch, what is damaged or of something else is refused by name."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch

from dysl_vla_ros.commands.main import main
from dysl_vla_ros.engines.onnx import sessions
from dysl_vla_ros.engines.onnx.exported import METADATA, OWN_WEIGHTS
from dysl_vla_ros.engines.onnx.exporting import checking
from dysl_vla_ros.engines.onnx.exporting.checking import LIMITS
from dysl_vla_ros.engines.onnx.exporting.export import export_checkpoint
from dysl_vla_ros.errors import CheckpointError, DataError, SettingError
from dysl_vla_ros.policies.exportable import EXPORTED, WHY_NOT, why_not
from dysl_vla_ros.policies.layouts import LAYOUTS
from dysl_vla_ros.policies.reference import ReferenceNetwork, save_reference
from dysl_vla_ros.runtime.folder import save_dysl
from dysl_vla_ros.runtime.step import Runtime
from dysl_vla_ros.skipping.modules import DyslModules
from dysl_vla_ros.skipping.partition import LayerPartition
from dysl_vla_ros.skipping.streams import Stream
from onnx_exports import LAYERS, damage, load, make_exported, rewrite, say_of_external
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl, tiny_config


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("good") / "base")


@pytest.fixture
def own(good: Path, tmp_path: Path) -> Path:
    """Return a copy that may be damaged."""
    return Path(shutil.copytree(good, tmp_path / "base"))


def test_it_prints_the_error_of_every_segment_and_copies_no_weight(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in good.rglob("*") if path.is_file()}
    assert main(["export", str(good), "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    written = json.loads((tmp_path / "out" / METADATA).read_text())
    for name in written["files"]:
        assert name.removesuffix(".onnx") in said
    assert set(written["errors"]) == {name.removesuffix(".onnx") for name in written["files"]}
    assert max(written["errors"].values()) <= LIMITS["fp32"]
    assert f"model.export: {tmp_path / 'out'}" in said
    assert {path: path.read_bytes() for path in good.rglob("*") if path.is_file()} == before
    graphs = sum(path.stat().st_size for path in (tmp_path / "out").glob("*.onnx"))
    assert not (tmp_path / "out" / OWN_WEIGHTS).exists()
    assert graphs < (good / "model.safetensors").stat().st_size + 200_000
    for path in (tmp_path / "out").glob("layers_*.onnx"):
        inline = [tensor for tensor in onnx.load(str(path), load_external_data=False).graph.initializer]
        assert all(tensor.external_data for tensor in inline if len(tensor.dims) == 2 and min(tensor.dims) > 16)
    assert load(good, export=str(tmp_path / "out")).description == load(good).description


@pytest.mark.parametrize("weights", ["fp16", "int8"])
def test_other_numbers_say_so_in_their_errors_and_in_the_hash(weights: str, own: Path) -> None:
    done = export_checkpoint(own, weights=weights)
    assert all(0.0 <= error <= LIMITS[weights] for error in done.export.errors.values())
    assert max(done.export.errors.values()) > 1e-5, "nothing was reduced"
    assert bool(done.weight_bytes) == (weights == "int8")
    ours, theirs = Runtime.load(str(own), ""), load(own)
    assert (ours.description.model_hash == theirs.description.model_hash) == (weights == "fp16")
    assert ours.description.weights_hash == theirs.description.weights_hash
    theirs.warm_up()
    with pytest.raises(SettingError, match="model.dtype is 'bfloat16'"):
        load(own, dtype="bfloat16")
    export_checkpoint(own)
    assert not (own / "onnx" / OWN_WEIGHTS).exists(), "what an earlier export left would lie there for ever"
    load(own)


@pytest.mark.parametrize("queries", [0, 3])
@pytest.mark.parametrize("rank", [0, 5])
@pytest.mark.parametrize("per_block", ["all", "first"])
def test_every_kind_of_module_equals_torch(queries: int, rank: int, per_block: str, tmp_path: Path) -> None:
    if rank and not queries:
        pytest.skip("a rank is of the mix of queries")
    config = tiny_config(LAYERS, rotation=bool(rank), joints={"elbow": "rad"} if queries else None)
    if per_block == "first":
        config = type(config)(**{**vars(config), "layout": "causal", "cameras": {"image": 48}})
    torch.manual_seed(3)
    save_reference(ReferenceNetwork(config), tmp_path / "base", {"data": "none"})
    partition = LayerPartition(LAYERS, (0, 3, LAYERS - 1), per_block)
    sizes = {"bottleneck": 8, "queries": queries, "controller_width": 4, "rank": rank}
    modules = DyslModules(partition, (Stream("stack", config.width),), **sizes)
    for parameter in modules.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    guidance = {"step": 0.1, "verify_threshold": 0.05, "dead_band": 0.0, "stride": "integral", "verify_on": "any"}
    base = json.loads((tmp_path / "base" / "config.json").read_text())
    save_dysl(
        tmp_path / "adapters", partition, modules, family="reference", base_sha256=base["files"]["model.safetensors"],
        choice="spread", module_sizes=sizes, calibration={"guidance": guidance, "actions_per_inference": 1},
    )  # fmt: skip
    done = export_checkpoint(tmp_path / "base", str(tmp_path / "adapters"))
    assert done.folder == tmp_path / "adapters" / "onnx"
    assert max(done.export.errors.values()) <= LIMITS["fp32"]
    theirs = load(tmp_path / "base", adapters=str(tmp_path / "adapters"))
    assert theirs.policy.run_lengths == ([1] * LAYERS if per_block == "all" else [1, 2, 1, 1, 3, 1, 1, 1])
    theirs.warm_up()


def test_what_differs_from_torch_is_not_written(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in (own / "onnx").iterdir()}
    monkeypatch.setitem(checking.LIMITS, "fp32", 1e-12)
    with pytest.raises(DataError, match=r"differs from torch.*layers_\d.*nothing was written"):
        export_checkpoint(own)
    assert {path: path.read_bytes() for path in (own / "onnx").iterdir()} == before


def cut(model: Any) -> bytes:
    return model.SerializeToString()[: model.ByteSize() // 2]


def unknown_operator(model: Any) -> None:
    model.graph.node[0].op_type = "Teleport"


def newer(model: Any) -> None:
    model.opset_import[0].version = 99


def other_layers(model: Any) -> bytes:
    return b"PK" + bytes(64)


GRAPHS = {
    "cut off": (cut, "refuses it"),
    "no graph at all": (other_layers, "refuses it"),
    "an unknown operator": (unknown_operator, "Teleport"),
    "a newer set of operators": (newer, "opset"),
    "external data that is missing": (say_of_external("location", "gone.safetensors"), "gone.safetensors not found"),
    "external data that leads out": (say_of_external("location", "../model.safetensors"), "not found"),
    "external data by an absolute path": (say_of_external("location", "/etc/hostname"), "not found"),
    "external data behind the end": (say_of_external("offset", "999999999"), "out of bounds"),
    "external data of another length": (say_of_external("length", "2"), "size mismatch"),
}


@pytest.mark.parametrize("what", GRAPHS)
def test_a_graph_with_the_right_hash_and_a_fault_is_refused_by_name(what: str, own: Path) -> None:
    change, words = GRAPHS[what]
    damage(own / "onnx", "layers_0_0.onnx", change)
    with pytest.raises(CheckpointError) as caught:
        load(own)
    said = str(caught.value)
    assert "layers_0_0.onnx" in said and words in said and "dysl_vla export" in said and "\n" not in said


def another_checkpoint(base: Path) -> None:
    other = make_exported_apart(base, seed=5)
    shutil.copytree(other, base / "onnx", dirs_exist_ok=True)


def make_exported_apart(base: Path, seed: int) -> Path:
    checkpoint = make_tiny_checkpoint(base.parent / "other", LAYERS, seed=seed)
    make_tiny_dysl(checkpoint / "dysl", checkpoint, offset=0.0)
    return export_checkpoint(checkpoint).folder


def other_adapters(base: Path) -> None:
    make_tiny_dysl(base / "dysl", base, seed=9)


def no_adapters(base: Path) -> None:
    shutil.rmtree(base / "dysl")


def other_statistics(base: Path) -> None:
    path = base / "config.json"
    values = json.loads(path.read_text())
    values["model"]["proprioception_mean"][0] += 0.5
    path.write_text(json.dumps(values))


def flipped(base: Path) -> None:
    path = base / "onnx" / "head.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no export": (lambda base: shutil.rmtree(base / "onnx"), "was not exported"),
    "another checkpoint": (another_checkpoint, "export of sha256"),
    "other adapters": (other_adapters, "was exported with DySL folder: sha256"),
    "no adapters": (no_adapters, "to be run: none"),
    "other statistics": (other_statistics, "export of hash"),
    "a flipped bit": (flipped, "is not the file that was exported"),
    "a graph that is missing": (lambda base: (base / "onnx" / "head.onnx").unlink(), "head.onnx is missing"),
    "another version": (lambda base: rewrite(base / "onnx", format_version=2), "format_version is 2"),
    "no version": (lambda base: rewrite(base / "onnx", format_version=None), "format_version is None"),
    "unknown numbers": (lambda base: rewrite(base / "onnx", weights="int4"), "weights is 'int4'"),
    "runs that leave layers out": (lambda base: rewrite(base / "onnx", runs=[[0, 1], [2, 8]]), "has no layers_2_7"),
    "runs of another type": (lambda base: rewrite(base / "onnx", runs="all"), "runs"),
    "a file outside": (lambda base: rewrite(base / "onnx", files={"../a.onnx": "0" * 64}), "'../a.onnx'"),
    "no files": (lambda base: rewrite(base / "onnx", files={}), "it has no"),
    "no JSON": (lambda base: (base / "onnx" / METADATA).write_text("{"), "cannot be read"),
}


@pytest.mark.parametrize("what", FOLDERS)
def test_an_export_of_something_else_or_damaged_is_refused_by_name(what: str, own: Path) -> None:
    change, words = FOLDERS[what]
    change(own)
    with pytest.raises(CheckpointError) as caught:
        load(own)
    said = str(caught.value)
    assert words in said and str(own / "onnx") in said and "\n" not in said


def test_a_provider_that_is_absent_is_refused_with_those_that_are_there(good: Path) -> None:
    with pytest.raises(SettingError, match=r"model.device is 'cuda:3', the ONNX Runtime here .* has .*CPUExecution"):
        load(good, device="cuda:3")


def test_a_runtime_that_is_too_old_is_refused_before_anything_is_loaded(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sessions.onnxruntime, "SessionOptions", object)  # as in releases before it could do this
    with pytest.raises(SettingError, match="too old; install 1.32, which needs Python 3.11"):
        load(good)


POOLS = """
import sys
from pathlib import Path
from dysl_vla_ros.engines.onnx.loading import load_onnx
load_onnx(Path(sys.argv[1]), "", threads=2)
try:
    load_onnx(Path(sys.argv[1]), "", threads=1)
except Exception as error:
    print(type(error).__name__, error)
"""


def test_graphs_share_one_pool_and_another_size_is_refused(good: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", POOLS, str(good)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("SettingError this process computes with ONNX Runtime in 2 threads, 1 were asked for")
    assert not done.stderr, "ONNX Runtime's own warnings do not belong into a robot's log"


def test_every_family_of_the_registry_is_exported_or_says_why_not() -> None:
    families = {name for layout in LAYOUTS.values() for name in layout}
    assert families == {*EXPORTED, *WHY_NOT} and not set(EXPORTED) & set(WHY_NOT)
    for name in families - set(EXPORTED):
        said = why_not(name)
        assert said.startswith(f"the family {name} is not exported: ") and ". " not in said


@pytest.mark.parametrize("name", sorted(WHY_NOT))
def test_a_family_that_is_not_exported_is_refused_by_verb_and_runtime(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = next(key for key, families in LAYOUTS.items() if name in families)
    (tmp_path / "config.json").write_text(json.dumps({layout: name}))
    assert main(["export", str(tmp_path)]) == 2
    assert f"the family {name} is not exported" in capsys.readouterr().err
    with pytest.raises(CheckpointError, match=f"{name} is not exported.*set model.runtime to torch"):
        load(tmp_path)

"""A DySL folder comes back as it was written, and one that does not fit is refused with file, finding and fix."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dysl_vla_ros.errors import CheckpointError, DataError
from dysl_vla_ros.runtime.folder import load_dysl, save_dysl
from dysl_vla_ros.skipping.partition import LayerPartition
from small_stacks import LAYERS, STREAMS, random_tokens, trained_like

PARTITION = LayerPartition(LAYERS, (0, 4, 7))
SIZES = {"bottleneck": 16, "queries": 4, "controller_width": 8}
GUIDANCE = {"step": 0.1, "verify_threshold": 0.05, "dead_band": 0.0, "stride": "integral", "verify_on": "any"}
BASE = "ab" * 32


def save(folder: Path, **changes: Any) -> Path:
    values = {
        "family": "reference",
        "base_sha256": BASE,
        "choice": "spread",
        "module_sizes": SIZES,
        "calibration": {"guidance": GUIDANCE, "actions_per_inference": 1, "note": [1, 2]},
    }
    save_dysl(folder, PARTITION, trained_like(PARTITION), **values | changes)
    return folder


def load(folder: Path) -> Any:
    return load_dysl(folder, BASE, LAYERS, STREAMS)


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    found = load(save(tmp_path / "dysl"))
    assert found.partition == PARTITION
    assert found.calibrated == GUIDANCE
    assert found.config["base"] == {"family": "reference", "sha256": BASE}
    assert found.config["partition"]["choice"] == "spread"
    written, read = trained_like(PARTITION).state_dict(), found.modules.state_dict()
    assert written.keys() == read.keys()
    for name, tensor in written.items():
        assert torch.equal(read[name], tensor.half().float()), name


def test_one_adapter_a_block_comes_back_as_one_adapter_a_block(tmp_path: Path) -> None:
    partition = LayerPartition(LAYERS, (0, 4, 7), "first")
    save_dysl(
        tmp_path / "dysl",
        partition,
        trained_like(partition),
        family="reference",
        base_sha256=BASE,
        choice="spread",
        module_sizes=SIZES,
        calibration={"guidance": GUIDANCE},
    )
    found = load(tmp_path / "dysl")
    assert found.partition == partition and set(found.modules.adapters) == {"1", "5"}


def test_a_folder_of_an_earlier_release_has_an_adapter_at_each_dynamic_layer(tmp_path: Path) -> None:
    folder = save(tmp_path / "dysl")
    edit(
        folder / "config.json", lambda config: (config["partition"].pop("per_block"), config["modules"].pop("adapter"))
    )
    assert load(folder).partition == PARTITION


@pytest.mark.parametrize(("queries", "kind"), [(4, "pooled"), (0, "token")])
def test_the_kind_of_adapter_is_told_by_name(tmp_path: Path, queries: int, kind: str) -> None:
    modules = trained_like(PARTITION, queries=queries)
    values = {"family": "reference", "base_sha256": BASE, "choice": "spread", "calibration": {"guidance": GUIDANCE}}
    save_dysl(tmp_path / "dysl", PARTITION, modules, module_sizes=SIZES | {"queries": queries}, **values)
    assert load(tmp_path / "dysl").config["modules"]["adapter"] == kind


def test_loaded_modules_compute_in_float32_without_gradients(tmp_path: Path) -> None:
    modules = load(save(tmp_path / "dysl")).modules
    assert not modules.training
    assert {(p.dtype, p.requires_grad) for p in modules.parameters()} == {(torch.float32, False)}
    hidden, mask = random_tokens(0)
    torch.testing.assert_close(
        modules.adapted(1, hidden, mask), trained_like(PARTITION).adapted(1, hidden, mask), rtol=0.02, atol=0.05
    )


def test_saving_again_replaces_the_folder(tmp_path: Path) -> None:
    folder = save(tmp_path / "dysl")
    save(folder, calibration={"guidance": GUIDANCE | {"step": 0.2}})
    assert load(folder).calibrated["step"] == 0.2
    assert sorted(path.name for path in folder.iterdir()) == ["adapters.safetensors", "calibration.json", "config.json"]


def test_what_the_modules_were_trained_with_is_kept_where_it_is_known(tmp_path: Path) -> None:
    assert "training" not in load(save(tmp_path / "unknown")).config
    told = {"steps": 3500, "seconds": 900}
    assert load(save(tmp_path / "known", training=told)).config["training"] == told


def test_a_calibration_by_hand_may_write_whole_numbers(tmp_path: Path) -> None:
    folder = save(tmp_path / "dysl")
    edit(folder / "calibration.json", lambda values: values["guidance"].update(step=1, dead_band=-1))
    assert load(folder).calibrated | {"step": 1.0, "dead_band": -1.0} == load(folder).calibrated


def test_a_folder_of_another_base_is_refused_with_both_hashes(tmp_path: Path) -> None:
    folder = save(tmp_path / "dysl")
    with pytest.raises(CheckpointError) as refusal:
        load_dysl(folder, "cd" * 32, LAYERS, STREAMS)
    assert BASE in str(refusal.value) and "cd" * 32 in str(refusal.value)
    assert "config.json" in str(refusal.value) and "dysl_vla distill" in str(refusal.value)


CONFIG_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "newer format": (lambda c: c.update(format_version=2), "format_version is 2, this version reads 1"),
    "no format": (lambda c: c.pop("format_version"), "format_version is None"),
    "no base": (lambda c: c.pop("base"), "base is nothing, expected a JSON dict"),
    "base without hash": (lambda c: c["base"].clear(), "base.family is nothing, expected a JSON str"),
    "other depth": (lambda c: c["partition"].update(num_layers=9), "partition.num_layers is 9, this checkpoint has 8"),
    "no partition": (lambda c: c["partition"].update(static=[0, 4]), r"first and last layer must be static"),
    "static of text": (lambda c: c["partition"].update(static=["0", "7"]), "expected whole numbers"),
    "huge module": (lambda c: c["modules"].update(bottleneck=10**9), "bottleneck is 1000000000, expected 1 to 65536"),
    "negative module": (lambda c: c["modules"].update(queries=-1), "queries is -1, expected 0"),
    "module of text": (lambda c: c["modules"].update(bottleneck="16"), "bottleneck is '16', expected a JSON int"),
    "other module": (lambda c: c["modules"].update(bottleneck=17), r"adapters.safetensors does not fit .*ed \(17"),
    "other adapters": (lambda c: c["modules"].update(adapter="token"), "adapter is 'token', with 4 queries"),
    "fewer points": (lambda c: c["partition"].update(per_block="first"), "does not fit .*is not of this model"),
    "unknown points": (lambda c: c["partition"].update(per_block=["2"]), "per_block is .*expected all or first"),
    "other blocks": (lambda c: c["partition"].update(static=[0, 5, 7]), "does not fit its config.json: .*is missing"),
    "no files": (lambda c: c.pop("files"), "names no files with their hashes"),
    "other hash": (lambda c: c["files"].update({"adapters.safetensors": "0" * 64}), "not the file that was written"),
}


@pytest.mark.parametrize("fault", CONFIG_FAULTS)
def test_a_config_that_does_not_fit_is_refused_by_name(tmp_path: Path, fault: str) -> None:
    change, message = CONFIG_FAULTS[fault]
    folder = save(tmp_path / "dysl")
    edit(folder / "config.json", change)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load(folder)
    assert str(folder) in str(refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("guidance"), "guidance is nothing, expected a JSON dict"),
        (lambda v: v["guidance"].pop("step"), "guidance.step is missing"),
        (lambda v: v["guidance"].update(step=0.0), "guidance.step is 0.0, which stands for no value"),
        (lambda v: v["guidance"].update(step=-1.0), "guidance.step must be from 0 to 100"),
        (lambda v: v["guidance"].update(step=True), "guidance.step must be a number"),
        (lambda v: v["guidance"].update(stride=""), "guidance.stride is '', which stands for no value"),
        (lambda v: v["guidance"].update(stride="wide"), "guidance.stride must be one of"),
        (lambda v: v["guidance"].update(verify_on=None, step="x"), "guidance.step must .*guidance.verify_on must"),
    ],
)
def test_a_calibration_that_cannot_serve_is_refused_by_name(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    folder = save(tmp_path / "dysl")
    edit(folder / "calibration.json", change)
    with pytest.raises(CheckpointError, match=message) as refusal:
        load(folder)
    assert "calibration.json" in str(refusal.value)


@pytest.mark.parametrize("name", ["config.json", "adapters.safetensors", "calibration.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "dysl")
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(folder)


def test_modules_without_thresholds_are_refused_until_they_are_calibrated_and_take_earlier_thresholds_away(
    tmp_path: Path,
) -> None:
    folder = save(tmp_path / "dysl")
    with pytest.raises(DataError):
        save(folder, calibration=None, beside={"config.json/report.json": {}})
    assert load(folder).calibrated["step"] > 0.0, "what could not be written changed nothing"
    save(folder, calibration=None)
    assert sorted(path.name for path in folder.iterdir()) == ["adapters.safetensors", "config.json"]
    with pytest.raises(CheckpointError, match=rf"no thresholds were .*dysl_vla calibrate .*--adapters {folder}"):
        load(folder)
    assert load_dysl(folder, BASE, LAYERS, STREAMS, calibrated=False).calibrated == {}


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="DySL folder '.*nowhere' is not a folder"):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "3", '{"guidance": NaN}', pytest.param("[" * 100_000, id="deep"), "\ud800"],
)
@pytest.mark.parametrize("name", ["config.json", "calibration.json"])
def test_text_that_is_no_json_object_is_refused(tmp_path: Path, name: str, text: str) -> None:
    folder = save(tmp_path / "dysl")
    (folder / name).write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(CheckpointError, match=name.replace(".", r"\.")):
        load(folder)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_one_flipped_bit_of_the_weights_is_refused(tmp_path: Path, where: float, bit: int) -> None:
    folder = save(tmp_path / "dysl")
    path = folder / "adapters.safetensors"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="adapters.safetensors .*is not the file that was written"):
        load(folder)


def test_a_calibration_that_cannot_serve_is_not_written(tmp_path: Path) -> None:
    folder = tmp_path / "dysl"
    with pytest.raises(CheckpointError, match="guidance.step is missing"):
        save(folder, calibration={"guidance": {}})
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "dysl").write_text("a file, no folder")
    with pytest.raises(DataError, match="cannot write .*dysl"):
        save(tmp_path / "dysl")

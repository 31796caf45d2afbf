"""A node whose worker has no torch: it moves the arm by ONNX Runtime, and refuses what cannot run by name.

Over real DDS, on one node.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onnx_exports import damage, make_exported, rewrite, say_of_external
from torchless_worker import torchless_python
from vla_rig import LIMIT, REPORT, Rig, gentle, running_rig

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_exported(tmp_path_factory.mktemp("base") / "exported", offset=9.0)


@pytest.fixture(scope="module")
def rig(ros_domain: int, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    python = torchless_python(tmp_path_factory.mktemp("python"))
    onnx = {"model.runtime": "onnx", "model.python": python, "skipping.threshold": 0.0}
    with running_rig(gentle(checkpoint) | onnx) as rig:
        yield rig


def fails_to_configure(rig: Rig, text: str) -> None:
    """Configure must fail, be explained by ``text``, and leave the node as it was."""
    assert rig.state() == "unconfigured"
    assert not rig.change("configure")
    rig.wait_for_error("worker", text)
    assert rig.state() == "unconfigured" and not rig.node.children()


def test_the_arm_moves_by_skipped_layers_without_torch(rig: Rig) -> None:
    rig.move()
    report = rig.peer.wait_for(
        REPORT,
        lambda own: sum(own.executed) < len(own.executed),
        LIMIT,
        "a report of skipped layers",
        rig.heard(REPORT),
    )
    assert report.layers_total == len(report.executed)
    rig.bring_to("unconfigured")


def no_change(folder: Path) -> None:
    pass


FAULTS: dict[str, tuple[dict[str, str], Callable[[Path], None], str]] = {
    "a provider that is absent": ({"model.device": "cuda"}, no_change, "has AzureExecutionProvider, CPUExecution"),
    "an export that is missing": ({}, lambda folder: shutil.rmtree(folder / "onnx"), "was not exported"),
    "an export of another version": ({}, lambda folder: rewrite(folder / "onnx", format_version=9), "format_version"),
    "weights that lead out": (
        {}, lambda folder: damage(folder / "onnx", "head.onnx", say_of_external("location", "../a")), "ONNX Runtime",
    ),
    "torch": ({"model.runtime": "torch"}, no_change, "has no torch; install it there"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_what_cannot_run_is_refused_at_configure_and_the_node_lives(
    what: str, rig: Rig, checkpoint: Path, tmp_path: Path
) -> None:
    changes, change, text = FAULTS[what]
    rig.bring_to("unconfigured")
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    change(other)
    usual = {"model.checkpoint": str(checkpoint), "model.device": "cpu", "model.runtime": "onnx"}
    named = {
        name.replace(".", "__"): value for name, value in (usual | {"model.checkpoint": str(other)} | changes).items()
    }
    assert rig.set(**named) == (True, "")
    try:
        fails_to_configure(rig, text)
    finally:
        assert rig.set(**{name.replace(".", "__"): value for name, value in usual.items()}) == (True, "")


def test_after_every_refusal_it_is_configured_and_moves_again(rig: Rig) -> None:
    rig.move()
    rig.bring_to("unconfigured")

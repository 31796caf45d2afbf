"""An option that is given counts, or a line says that it does not: before anything is done, and never elsewhere."""

import shutil
from pathlib import Path

import pytest

from dysl_vla_ros.commands.main import main
from tiny_bag import write_tiny_bag
from tiny_checkpoint import INSTRUCTION, make_tiny_checkpoint, make_tiny_dysl

PRE = "warning: without effect: "


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A checkpoint without adapters, one with them, and a bag."""
    bare = make_tiny_checkpoint(tmp_path_factory.mktemp("bare") / "base")
    full = tmp_path_factory.mktemp("full") / "base"
    shutil.copytree(bare, full)
    make_tiny_dysl(full / "dysl", full)
    bag = write_tiny_bag(tmp_path_factory.mktemp("bags") / "one", ticks=8, episodes=(INSTRUCTION,) * 2)
    return bare, full, bag


# What is given; the options of it that do nothing. The last options make the command end before it does anything.
CASES = [
    ("distill BARE BAG --go-on-from FULL/dysl --bottleneck 7 --adapter token", "--adapter, --bottleneck"),
    ("distill BARE BAG --go-on-from FULL/dysl --hidden-steps 7", "--hidden-steps"),
    ("distill BARE BAG --go-on-from FULL/dysl --action-steps 7", ""),
    ("distill BARE BAG --skip-weight 0.3", "--skip-weight"),
    ("distill BARE BAG --skip-weight 0.3 --controllers mixture", ""),
    ("distill BARE BAG --queries 7 --adapter token", "--queries"),
    ("distill BARE BAG --queries 7", ""),
    ("distill BARE BAG --pool-rank 7 --adapter token", "--pool-rank"),
    ("distill BARE BAG --pool-rank 7", ""),
    ("distill BARE BAG --go-on-from FULL/dysl --pool-rank 7", "--pool-rank"),
    ("distill BARE BAG --no-calibrate --target-layers 0.2", "--target-layers"),
    ("distill BARE BAG --target-layers 0.2", ""),
    ("distill BARE BAG --seeds 3", "--seeds"),
    ("calibrate BARE BAG --target-layers 0.2 --seeds 3", "--target-layers, --seeds"),
    ("calibrate BARE BAG --static-layers 3 --observations 30", ""),
    ("calibrate FULL BAG --static-layers 3 --observations 30", "--static-layers, --observations"),
    ("calibrate FULL BAG --target-layers 0.2", ""),
    ("calibrate FULL --target-layers 0.2 --seeds 3", ""),
    ("calibrate FULL BAG --seeds 3", "--seeds"),
    ("floors BARE BAG --out OUT --max-ticks 7", "--max-ticks"),
    ("floors BARE BAG --out OUT --hidden-steps 7", ""),
]


@pytest.mark.parametrize(("given", "idle"), CASES)
def test_an_option_that_does_nothing_is_named_and_no_other(given, idle, folders, tmp_path, capsys):
    bare, full, bag = folders
    places = {"BARE": bare, "FULL": full, "BAG": bag, "OUT": tmp_path}
    words = [
        str(places[head]) + word.removeprefix(head) if (head := word.partition("/")[0]) in places else word
        for word in given.split()
    ]
    assert main([*words, "--frame", "no form"]) == 2, "this is refused when all else was looked at"
    said = [line.removeprefix(PRE) for line in capsys.readouterr().err.splitlines() if line.startswith(PRE)]
    assert [line.partition(": ")[0] for line in said] == ([idle] if idle else [])
    assert all(line.partition(": ")[2] for line in said), "why"

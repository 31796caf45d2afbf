"""What the build installs, and that the tests run on it and not on the checkout."""

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import pytest

import dysl_vla_ros
from dysl_vla_ros.commands import main
from dysl_vla_ros.commands.main import VERBS, available_verbs
from harness import install_prefix

CHECKOUT = Path(__file__).parents[1]
PROGRAMS = [
    line.split() for line in (CHECKOUT / "programs.txt").read_text().splitlines() if line and not line.startswith("#")
]

pytestmark = pytest.mark.ros


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    # not from the checkout: `python -c` would import the package from the current folder
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL, cwd=install_prefix()
    )


def program(name: str) -> Path:
    place = next(line[3] for line in PROGRAMS if line[0] == name)
    return install_prefix() / ("bin" if place == "bin" else "lib/dysl_vla_ros") / name


def test_the_package_was_imported_from_where_it_is_installed() -> None:
    imported = Path(dysl_vla_ros.__file__)
    assert install_prefix() in imported.parents, "run `make test`, or source the install's setup.bash first"
    assert imported != CHECKOUT / "dysl_vla_ros" / "__init__.py"
    assert dysl_vla_ros.__doc__, "the generated, empty __init__.py has replaced ours"


@pytest.mark.parametrize("line", PROGRAMS, ids=lambda line: line[0])
def test_every_program_of_the_list_is_installed_and_its_function_exists(line: Sequence[str]) -> None:
    name, _, target, _ = line
    assert os.access(program(name), os.X_OK), program(name)
    module, _, function = target.partition(":")
    done = run(sys.executable, "-c", f"from {module} import {function}; assert callable({function})")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [line[0] for line in PROGRAMS])
def test_a_program_that_multiprocessing_imports_again_does_not_run_again(name: str) -> None:
    code = f"import runpy; runpy.run_path({str(program(name))!r}, run_name='__mp_main__'); print('imported')"
    done = run(sys.executable, "-c", code)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "imported", "")


def test_launch_configuration_and_messages_are_installed() -> None:
    share = install_prefix() / "share" / "dysl_vla_ros"
    for folder in ("launch", "config"):
        wanted = {path.name for path in (CHECKOUT / folder).iterdir() if path.is_file()}
        assert wanted
        assert wanted <= {path.name for path in (share / folder).iterdir()}
    from dysl_vla_ros import msg, srv

    for folder, module in (("msg", msg), ("srv", srv)):
        names = {path.stem for path in (CHECKOUT / folder).iterdir()}
        assert names
        assert all(hasattr(module, name) for name in names)
        assert {path.stem for path in (share / folder).glob(f"*.{folder}")} == names


def test_every_message_states_its_version() -> None:
    from dysl_vla_ros import msg

    for path in (CHECKOUT / "msg").iterdir():
        message = getattr(msg, path.stem)
        assert message.VERSION >= 1
        assert message.get_fields_and_field_types()["version"] == "uint8"


def test_package_xml_and_module_name_the_same_version() -> None:
    manifest = ElementTree.parse(install_prefix() / "share/dysl_vla_ros/package.xml")
    assert manifest.findtext("version") == dysl_vla_ros.__version__


def test_help_lists_every_verb_and_teaches_the_order() -> None:
    done = run(str(program("dysl_vla")), "--help")
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    for name, verb in available_verbs().items():
        assert f"{name} " in done.stdout
        assert verb.help in " ".join(done.stdout.split())
    path = ("demonstrations", "train", "calibrate", "distill", "evaluate")
    order = [done.stdout.index(f"dysl_vla {name} --help") for name in path]
    assert order == sorted(order)


@pytest.mark.parametrize("verb", sorted(available_verbs()))
def test_every_verb_explains_itself(verb: str) -> None:
    done = run(str(program("dysl_vla")), verb, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: dysl_vla {verb}")


def test_every_verb_of_the_registry_is_there() -> None:
    assert set(available_verbs()) == set(VERBS)


@pytest.mark.parametrize("arguments", [["no_such_verb"], [], ["--no-such-option"], ["demo", "--no-such-option"]])
def test_a_wrong_command_line_ends_with_2_and_says_what_there_is(arguments: list[str]) -> None:
    done = run(str(program("dysl_vla")), *arguments)
    assert done.returncode == 2
    assert not done.stdout
    assert "error:" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("verb", ["inspect", "evaluate"])
def test_a_users_mistake_is_one_line_with_the_verb_and_exit_code_2(verb: str, tmp_path: Path) -> None:
    done = run(str(program("dysl_vla")), verb, str(tmp_path / "nowhere"))
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(f"dysl_vla {verb}: error: ")
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


def test_a_verb_whose_ground_is_missing_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(main.VERBS, "inspect", main.VERBS["inspect"]._replace(needs="rclpy_is_not_here"))
    monkeypatch.setitem(main.FIXES, "rclpy_is_not_here", "install it")
    assert main.main(["inspect", "somewhere"]) == 2
    assert capsys.readouterr().err == ("dysl_vla inspect: error: rclpy_is_not_here is not installed here; install it\n")


def test_an_interrupted_verb_ends_with_130(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dysl_vla_ros.commands.inspect.check", interrupted)
    assert main.main(["inspect", "somewhere"]) == 130
    assert capsys.readouterr().err == "dysl_vla inspect: interrupted\n"

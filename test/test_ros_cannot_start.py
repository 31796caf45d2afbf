"""Where rclpy cannot start, every program says so in one line with exit code 2, and the doctor tells all the rest.

Real processes in environments that ROS cannot start in: rclpy itself ends or leaves a process that has them.
"""

import os
import subprocess
from pathlib import Path

import pytest

import warm_program
from harness import install_prefix
from test_doctor import findings_in, one

pytestmark = pytest.mark.ros
LIMIT = 60.0  # s for one process
WITHOUT_START = [
    ({"ROS_DOMAIN_ID": "300"}, "ROS_DOMAIN_ID='300'", "0 to 232", "export ROS_DOMAIN_ID=0"),
    ({"ROS_DOMAIN_ID": "abc"}, "ROS_DOMAIN_ID='abc'", "0 to 232", "export ROS_DOMAIN_ID=0"),
    ({"RMW_IMPLEMENTATION": "rmw_nope"}, "RMW_IMPLEMENTATION='rmw_nope'", "rmw_fastrtps_cpp", "unset"),
]


def run(program: str, *arguments: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    folder = "bin" if program == "dysl_vla" else "lib/dysl_vla_ros"
    return warm_program.run(
        [str(install_prefix() / folder / program), *arguments], LIMIT, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, cwd=install_prefix(), env=os.environ | environment,
    )  # fmt: skip


@pytest.mark.parametrize(("environment", "names", "expected", "fix"), WITHOUT_START, ids=["300", "abc", "rmw"])
def test_every_program_says_in_one_line_why_ros_cannot_start(
    environment: dict[str, str], names: str, expected: str, fix: str, tmp_path: Path
) -> None:
    folder = ["--ros-args", "-p", f"folder:={tmp_path / 'bag'}"]
    for program, arguments in (
        ("vla_node", []), ("sim_node", []), ("bag_recorder", folder), ("dysl_vla", ["monitor", "--once"]),
    ):  # fmt: skip
        done = run(program, *arguments, environment=environment)
        lines = done.stderr.strip().splitlines()
        assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), (program, done)
        assert f"{program}" in lines[0] and "error: ROS cannot start: " in lines[0]
        assert names in lines[0] and expected in lines[0] and fix in lines[0]
    assert not (tmp_path / "bag").exists()


@pytest.mark.parametrize(
    ("environment", "names", "expected", "fix"),
    [pytest.param(*case, marks=pytest.mark.slow if case != WITHOUT_START[0] else ()) for case in WITHOUT_START],
    ids=["300", "abc", "rmw"],
)
def test_the_doctor_tells_every_other_line_and_the_fix(
    environment: dict[str, str], names: str, expected: str, fix: str
) -> None:
    done = run("dysl_vla", "doctor", environment=environment)
    found = findings_in(done.stdout)
    level, _, text, told = one(found, "RMW")
    assert level == "FAIL" and names in text and expected in text and fix in told
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert {"ROS", "checkpoint", "adapters", "memory"} <= {subject for _, subject, *_ in found}


@pytest.mark.slow
def test_without_a_home_monitor_and_doctor_work(tmp_path: Path) -> None:
    environment = {"HOME": "", "ROS_LOG_DIR": "", "ROS_HOME": "", "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", "0")}
    done = run("dysl_vla", "doctor", environment=environment)
    assert one(findings_in(done.stdout), "RMW")[0] == "OK", done
    done = run("dysl_vla", "monitor", "--once", "--node", "/nobody", environment=environment)
    assert done.returncode == 1 and "waiting for /nobody" in done.stdout and not done.stderr, done


def test_a_topic_that_cannot_be_called_so_is_one_line(tmp_path: Path) -> None:
    topics = ["--ros-args", "-p", f"folder:={tmp_path / 'bag'}", "-p", "topics:=['no topic!']"]
    done = run("bag_recorder", *topics, environment={})
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done
    assert "topics: 'no topic!' is no name of a topic" in done.stderr and not (tmp_path / "bag").exists()
    for arguments in (["monitor", "--node", "9 lives"], ["doctor", "--image", "no topic!"]):
        done = run("dysl_vla", *arguments, environment={})
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done
        assert "is no name of a" in done.stderr

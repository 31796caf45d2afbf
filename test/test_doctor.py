"""`dysl_vla doctor`: each fault made on purpose, on real topics and files, is found and its fix is named."""

import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import SimpleNamespace

import pytest

import dysl_vla_ros
from dysl_vla_ros.doctor.checks import cameras, clocks, machine, packages, qos, ros, transport
from dysl_vla_ros.doctor.dds_profile import DEFAULT_SEGMENT
from dysl_vla_ros.doctor.dds_profile import transport as transport_of
from dysl_vla_ros.doctor.examination import Examination
from dysl_vla_ros.doctor.finding import Level, fail, ok, warn
from dysl_vla_ros.doctor.graph import Camera, Mismatch, Reading, Snapshot, VlaNode
from dysl_vla_ros.doctor.report import lines
from dysl_vla_ros.doctor.requirements import read
from dysl_vla_ros.doctor.senders import Senders
from dysl_vla_ros.transport import BEFORE_KILTED, CHOICES_OF_THE_USER, VARIABLE, VARIABLE_BEFORE_KILTED
from harness import RosPeer, install_prefix
from onnx_exports import make_exported
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl
from torchless_worker import torchless_python
from warm_program import run

CONFIG = Path(__file__).parents[1] / "config"
LIMIT = 60.0  # s for one run of the doctor


def doctor(*arguments, environment=None):
    """Run the real command; return its exit code and its findings as (level, subject, text, fix)."""
    command = [str(install_prefix() / "bin" / "dysl_vla"), "doctor", *map(str, arguments)]
    done = run(
        command, LIMIT, capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=install_prefix(), env=environment
    )
    assert "Traceback" not in done.stderr + done.stdout, done.stderr + done.stdout
    return done.returncode, findings_in(done.stdout)


def findings_in(text):
    found = []
    for line in text.splitlines():
        if match := re.match(r"(OK|WARN|FAIL) +(\S+(?: \S+)?)  +(.*)", line):
            found.append([*match.groups(), ""])
        elif found and "fix: " in line:
            found[-1][3] = line.partition("fix: ")[2]
    return found


def one(findings, subject, text=""):
    fitting = [it for it in findings if it[1] == subject and text in it[2]]
    assert len(fitting) == 1, (subject, text, findings)
    return fitting[0]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("doctor") / "tiny")
    make_tiny_dysl(folder / "dysl", folder)
    return folder


class Driver:
    """A camera driver in this process, in its own thread: its stamps can be shifted."""

    def __init__(self, peer, topic, shift, rate=30.0, size=(64, 48)):
        from rclpy.qos import qos_profile_sensor_data
        from sensor_msgs.msg import Image

        self.publisher = peer.node.create_publisher(Image, topic, qos_profile_sensor_data)
        self.peer, self.shift, self.period = peer, shift, 1.0 / rate
        self.size = size
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        from rclpy.duration import Duration
        from sensor_msgs.msg import Image

        width, height = self.size
        image = Image(height=height, width=width, encoding="rgb8", step=3 * width, data=bytes(3 * width * height))
        due = time.monotonic()
        while not self.ended.wait(max(due - time.monotonic(), 0.0)):
            image.header.stamp = (self.peer.node.get_clock().now() + Duration(seconds=self.shift)).to_msg()
            self.publisher.publish(image)
            due += self.period

    def close(self):
        self.ended.set()
        self.thread.join(5.0)


@pytest.mark.ros
def test_faults_of_a_living_graph_are_found_by_one_run(peer, checkpoint, tmp_path):
    """In an environment that names no profile, with stamps ahead and behind, a camera too large, one that is not there
    and one topic with two cameras, a best-effort publisher under a reliable subscription, two types on one topic,
    another base's adapters."""
    from rclpy.qos import qos_profile_sensor_data
    from std_msgs.msg import Float64, String

    drivers = [
        Driver(peer, "/good", 0.0),
        Driver(peer, "/ahead", 3.0),
        Driver(peer, "/behind", -3.0),
        Driver(peer, "/large", 0.0, rate=5.0, size=(640, 480)),
    ]
    images = [word for name in ("good", "ahead", "behind", "large", "nowhere", "twice") for word in ("--image", name)]
    kept = [
        peer.node.create_publisher(String, "/deaf", qos_profile_sensor_data),
        peer.node.create_subscription(String, "/deaf", lambda message: None, 10),
        peer.node.create_publisher(String, "/two_types", 10),
    ]
    other = make_tiny_checkpoint(tmp_path / "other", seed=1)
    defaults = {name: value for name, value in os.environ.items() if name not in CHOICES_OF_THE_USER}
    try:
        with RosPeer() as second:  # one process may not use a topic with two types
            second.listen("/two_types", Float64)
            drivers += [Driver(peer, "/twice", 0.0), Driver(second, "/twice", 0.0, rate=5.0)]
            both = " and ".join(sorted(each.node.get_fully_qualified_name() for each in (peer, second)))
            files = ("--checkpoint", other, "--adapters", checkpoint / "dysl")
            code, found = doctor("--live", 3.0, *images, *files, environment=defaults)
            drivers.pop().close()  # it must not publish when its node is gone
    finally:
        for driver in drivers:
            driver.close()
    assert code == 1 and kept
    level, _, text, _ = one(found, "camera", "/good: ")
    assert float(re.search(r"([\d.]+) Hz", text)[1]) == pytest.approx(30.0, rel=0.15), text
    assert "64x48 rgb8" in text and "jitter" in text
    assert one(found, "camera", "/nowhere: nobody publishes it")[0] == "FAIL"
    level, _, text, fix = one(found, "publishers")
    assert level == "FAIL" and text.startswith(f"/twice: {both} publish it at the same time")
    assert "stop one of them" in fix and "remap" in fix
    assert one(found, "stamps", "/good: ")[0] == "OK"
    ahead, behind = one(found, "stamps", "/ahead"), one(found, "stamps", "/behind")
    assert ahead[0] == behind[0] == "FAIL"
    assert "2.9" in ahead[2] or "3.0" in ahead[2]
    assert "safety.max_clock_skew" in ahead[2] and "safety.max_stamp_age" in behind[2] and "chrony" in ahead[3]
    level, _, text, fix = one(found, "transport")
    assert level == "FAIL" and "640x480 rgb8" in text and "3.5 MiB are needed" in text
    variable = VARIABLE_BEFORE_KILTED if os.environ.get("ROS_DISTRO") in BEFORE_KILTED else VARIABLE
    assert re.search(rf"export {variable}=\S*/config/dds.xml$", fix)
    level, _, text, fix = one(found, "QoS", "/deaf")
    assert level == "WARN" and peer.node.get_name() in text and "best effort" in fix
    assert one(found, "types", "/two_types")[0] == "WARN"
    level, _, text, fix = one(found, "adapters")
    assert level == "FAIL" and "--adapters" in fix
    for folder in (checkpoint, other):
        assert json.loads((folder / "config.json").read_text())["files"]["model.safetensors"][:12] in text
    for subject in ("checkpoint", "memory", "ROS", "RMW", "clock"):
        assert one(found, subject)[0] == "OK", found
    assert all(fix for level, _, _, fix in found if level != "OK")


def test_without_ros_and_without_any_package_every_line_still_comes(checkpoint):
    """No site-packages: neither rclpy nor torch, rich, tqdm or numpy."""
    environment = {name: value for name, value in os.environ.items() if name not in ("AMENT_PREFIX_PATH",)}
    environment["PYTHONPATH"] = str(Path(dysl_vla_ros.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-S", "-m", "dysl_vla_ros.commands.main", "doctor", "--checkpoint", str(checkpoint)],
        capture_output=True, text=True, timeout=LIMIT, check=False, cwd="/", env=environment,
    )  # fmt: skip
    assert not done.stderr
    found = findings_in(done.stdout)
    assert done.returncode == 1
    assert one(found, "ROS")[0] == "WARN" and "were not looked at" in one(found, "ROS")[2]
    assert one(found, "torch")[0] == "FAIL"
    assert one(found, "checkpoint")[0] == one(found, "adapters")[0] == "OK"
    assert one(found, "memory")[0] == "OK"


# -- packages ----------------------------------------------------------------------------------------------------------


def requirement(tmp_path, line):
    (tmp_path / "requirements.txt").write_text(f"# a comment\n{line}\n")
    (found,) = read(tmp_path / "requirements.txt")
    return found


def test_a_missing_package_is_named_with_the_command_that_installs_it(tmp_path):
    (finding,) = packages.compare(requirement(tmp_path, "no-such-package-of-ours>=1.2,<2"))
    assert finding.level is Level.FAIL
    assert "no-such-package-of-ours is not installed" in finding.text
    assert "pip install 'no-such-package-of-ours>=1.2,<2'" in finding.fix


def test_a_version_out_of_the_tested_range_is_a_warning(tmp_path):
    (finding,) = packages.compare(requirement(tmp_path, "numpy>=0.1,<0.2"))
    assert finding.level is Level.WARN and ">=0.1,<0.2" in finding.text
    assert not list(packages.compare(requirement(tmp_path, "numpy>=1.0")))


@pytest.mark.parametrize(
    ("version", "fits"), [("2.13.0+cpu", True), ("2.12.9", False), ("3", False), ("3.0.0", False), ("2.13", True)]
)
def test_ranges_are_compared_as_numbers(tmp_path, version, fits):
    assert requirement(tmp_path, "torch>=2.13,<3").fits(version) is fits


def test_every_line_of_the_requirements_is_read():
    for name, least in (("runtime", 10), ("torch", 6)):
        path = Path(__file__).parents[1] / "requirements" / f"{name}.txt"
        wanted = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        assert len(read(path)) == len(wanted) > least


def doctor_without_torch(folder, *arguments):
    """Run the command in a Python without torch; return its exit code and its findings."""
    line = [torchless_python(folder), "-m", "dysl_vla_ros.commands.main", "doctor", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=LIMIT, cwd=install_prefix(), check=False)
    said = done.stdout + done.stderr
    assert "Traceback" not in said and "the check itself failed" not in said, said
    return done.returncode, findings_in(done.stdout)


def test_without_torch_the_doctor_says_what_computes_and_what_it_would_need(checkpoint, tmp_path):
    shipped = Path(__file__).parents[1] / "checkpoints" / "reference"
    _, found = doctor_without_torch(tmp_path, "--checkpoint", shipped)
    assert one(found, "torch")[0] == "OK" and "model.runtime: onnx" in one(found, "torch")[2]
    assert one(found, "export")[0] == "OK" and "of this checkpoint, fp32" in one(found, "export")[2]
    assert one(found, "checkpoint")[0] == one(found, "adapters")[0] == one(found, "onnxruntime")[0] == "OK"
    assert not [it for it in found if it[1] == "packages" and it[0] != "OK"], "nothing of torch is missed"

    code, found = doctor_without_torch(tmp_path, "--checkpoint", checkpoint)
    level, _, text, fix = one(found, "export")
    assert code == 1 and level == "FAIL" and "export.json is missing" in text and "dysl_vla export" in fix
    assert one(found, "adapters")[0] == "OK", "what the files say is compared all the same"


def test_an_export_of_other_weights_is_found(tmp_path):
    folder = make_exported(tmp_path / "own")
    assert one(doctor("--checkpoint", folder)[1], "export")[0] == "OK"
    make_tiny_dysl(folder / "dysl", folder, offset=1.0)
    level, _, text, fix = one(doctor("--checkpoint", folder)[1], "export")
    assert level == "WARN" and "it was exported with DySL folder" in text and "dysl_vla export" in fix


def test_a_package_of_the_worker_may_be_missing_where_the_worker_has_its_own_python(monkeypatch, tmp_path):
    monkeypatch.setattr(packages, "installed", lambda name: None)
    (finding,) = packages.compare(requirement(tmp_path, "torch>=2.13,<3"), "/opt/worker/bin/python")
    assert finding.level is Level.WARN and "/opt/worker/bin/python" in finding.fix


# -- transport ---------------------------------------------------------------------------------------------------------

FULL_HD = 1920 * 1080 * 3


def test_the_shipped_profiles_differ_in_their_segment_alone():
    sizes = {}
    for segment, name in transport.PROFILES.items():
        chosen = transport_of({VARIABLE: str(CONFIG / name)}, "kilted")
        assert (chosen.segment, chosen.fault) == (segment, "")
        root = ElementTree.parse(CONFIG / name).getroot()
        next(element for element in root.iter() if element.tag.endswith("segment_size")).text = ""
        sizes[name] = ElementTree.tostring(root)
    assert len(set(sizes.values())) == 1


@pytest.mark.parametrize(
    ("environment", "segment"),
    [
        ({}, DEFAULT_SEGMENT),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "UDPv4"}, None),
        ({"FASTDDS_BUILTIN_TRANSPORTS": "SHM"}, DEFAULT_SEGMENT),
        ({VARIABLE_BEFORE_KILTED: str(CONFIG / "dds.xml")}, 8 * 2**20),
    ],
)
def test_the_segment_of_an_environment_is_known(environment, segment):
    assert transport_of(environment).segment == segment


def test_too_small_a_segment_is_found_and_the_fix_makes_one_that_is_large_enough(tmp_path):
    chosen = transport_of({}, "kilted")
    finding = transport.judge(chosen, FULL_HD, "1920x1080 rgb8", "kilted")
    assert finding.level is Level.FAIL and "dds_large_images.xml" in finding.fix and VARIABLE in finding.fix
    assert VARIABLE_BEFORE_KILTED in transport.judge(chosen, FULL_HD, "1920x1080 rgb8", "jazzy").fix
    small = transport_of({VARIABLE: str(CONFIG / "dds.xml")}, "kilted")
    assert transport.judge(small, FULL_HD, "1920x1080 rgb8", "kilted").level is Level.WARN
    assert transport.judge(small, 640 * 480 * 3, "640x480 rgb8", "kilted").level is Level.OK
    # larger than both shipped profiles: the command itself is carried out
    huge = 4 * FULL_HD
    fix = transport.judge(small, huge, "3840x2160 rgb8", "kilted").fix
    subprocess.run(["bash", "-c", fix.partition(",")[0]], check=True, cwd=tmp_path, timeout=10)
    made = transport_of({VARIABLE: str(tmp_path / "dds.xml")}, "kilted")
    assert made.segment >= 4 * huge
    assert transport.judge(made, huge, "3840x2160 rgb8", "kilted").level is Level.OK


def test_a_profile_that_fast_dds_would_pass_over_is_found(tmp_path):
    for content, said in (("", "cannot be read"), ("<dds></dds>", "is_default_profile")):
        (tmp_path / "dds.xml").write_text(content)
        finding = transport.judge(transport_of({VARIABLE: str(tmp_path / "dds.xml")}), 1000, "small", "kilted")
        assert finding.level is Level.FAIL and said in finding.text
    assert "cannot be read" in transport_of({VARIABLE: str(tmp_path / "none.xml")}).fault


def test_large_data_is_ignored_on_localhost():
    chosen = transport_of({"FASTDDS_BUILTIN_TRANSPORTS": "LARGE_DATA"})
    assert transport.judge(chosen, FULL_HD, "1920x1080 rgb8", "kilted").level is Level.OK
    assert transport.judge(chosen, FULL_HD, "", "kilted", discovery="LOCALHOST").level is Level.WARN


def test_room_in_shared_memory_is_counted_for_every_sender():
    assert transport.judge_room(24 * 2**20, 64 * 2**20, 8 * 2**20).level is Level.OK
    finding = transport.judge_room(10 * 2**20, 64 * 2**20, 8 * 2**20)
    assert finding.level is Level.FAIL and "size=78m" in finding.fix


# -- cameras and clocks ------------------------------------------------------------------------------------------------


def camera(arrivals, stamps=None, sim=math.nan):
    stamps = arrivals if stamps is None else stamps
    readings = [
        Reading(stamp, arrival + 0.02, sim, arrival, 100, "8x4 rgb8")
        for stamp, arrival in zip(stamps, arrivals, strict=True)
    ]
    return Camera("/image", ("/driver",), tuple(readings))


EVEN = [1000.0 + number / 30.0 for number in range(60)]


def test_loss_gaps_and_jitter_are_told_apart():
    assert cameras.judge(camera(EVEN), 2.0, 0.3).level is Level.OK
    lost = [stamp for number, stamp in enumerate(EVEN) if number % 5 in (0, 1)]
    assert camera(lost).lost() == pytest.approx(0.6, abs=0.03)
    trembling = [stamp + 0.008 * (-1) ** number for number, stamp in enumerate(EVEN)]
    assert camera(trembling).lost() == 0.0
    finding = cameras.judge(camera(lost), 2.0, 0.3)
    assert finding.level is Level.FAIL and "30.0 Hz" in finding.text and "lost" in finding.text
    gap = [stamp + (0.5 if number == 59 else 0.0) for number, stamp in enumerate(EVEN)]
    assert "safety.max_arrival_age" in cameras.judge(camera(gap, EVEN), 2.0, 0.3).text
    uneven = [stamp + (0.028 if number % 2 else 0.0) for number, stamp in enumerate(EVEN)]
    assert cameras.judge(camera(uneven, EVEN), 2.0, 0.3).level is Level.WARN
    assert cameras.judge(camera(EVEN[:3]), 2.0, 0.3).level is Level.FAIL


def test_a_stamp_that_stands_still_and_one_that_is_zero_are_found():
    assert "frozen" in clocks.judge(camera(EVEN, [1000.0] * 60), False, 0.05, 0.5).text
    assert "stamp 0" in clocks.judge(camera(EVEN, [0.0] * 60), False, 0.05, 0.5).text


def test_stamps_are_compared_with_the_simulated_clock_where_it_rules():
    simulated = camera(EVEN, [5.0 + number / 30.0 for number in range(60)], sim=6.0)
    assert clocks.judge(simulated, True, 0.05, 5.0).level is Level.OK
    assert clocks.judge(simulated, False, 0.05, 5.0).level is Level.FAIL


@pytest.mark.parametrize(
    ("sim", "publishers", "level"),
    [(True, (), Level.FAIL), (False, ("/bag",), Level.WARN), (True, ("/a", "/b"), Level.WARN), (False, (), Level.OK)],
)
def test_use_sim_time_and_the_publishers_of_clock_must_agree(sim, publishers, level):
    examination = Examination()
    node = VlaNode("/dysl_vla", {"use_sim_time": sim})
    snapshot = Snapshot("rmw_fastrtps_cpp", 1.0, vla_nodes=(node,), clock_publishers=publishers)
    examination.__dict__["_looked"] = (snapshot, "")
    (finding,) = clocks.sim_time(examination)
    assert finding.level is level


def test_two_clocks_are_a_failure_when_both_were_heard_not_when_both_are_listed():
    gids = {"/a": b"1", "/b": b"2", "/c": b"3"}
    ends = [SimpleNamespace(node_name=name, endpoint_gid=gid) for name, gid in gids.items()]
    both, one_alone = Senders(2.5), Senders(2.5)
    for index in range(10):
        for senders, gid in ((both, b"12"[index % 2 : index % 2 + 1]), (one_alone, b"1")):
            senders.heard("/clock", {"publisher_gid": {"data": gid}}, 0.01 * index)
    for senders, level in ((both, Level.FAIL), (one_alone, Level.WARN)):
        found = senders.doubled(lambda topic: ends, lambda end: end.node_name)
        snapshot = Snapshot("rmw_fastrtps_cpp", 1.0, clock_publishers=("/a", "/b"), doubled=found)
        examination = Examination()
        examination.__dict__["_looked"] = (snapshot, "")
        (finding,) = clocks.sim_time(examination)
        assert finding.level is level
    assert both.doubled(lambda topic: ends, lambda end: end.node_name)[0].nodes == ("/a", "/b")


def test_without_gids_the_graph_must_show_two_publishers_as_well():
    senders = Senders(2.5)
    for index in range(10):
        senders.heard("/image", {"publication_sequence_number": index if index % 2 else 500 + index}, 0.01 * index)
    ends = [SimpleNamespace(node_name="/a"), SimpleNamespace(node_name="/b")]
    assert senders.doubled(lambda topic: ends, lambda end: end.node_name)[0].nodes == ("/a", "/b")
    assert senders.doubled(lambda topic: ends[:1], lambda end: end.node_name) == ()


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_memory_is_judged_by_what_the_checkpoint_needs(checkpoint):
    counted = machine.count_values(checkpoint / "model.safetensors")
    assert counted > 10_000
    assert machine.judge_memory(100, 200).level is Level.FAIL
    assert machine.judge_memory(250, 200).level is Level.WARN
    assert machine.judge_memory(400, 200).level is Level.OK
    assert machine.free_memory() > 0


@pytest.mark.ros
@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        ("lyrical", "11.2.0", "lyrical, rclpy 11.2.0; tested are jazzy and kilted"),
        pytest.param("", "11.2.0.dev1", "unknown distribution, rclpy 11.2.0.dev1; tested", marks=pytest.mark.slow),
        pytest.param("", "new", "unknown distribution, rclpy new; tested", marks=pytest.mark.slow),
        pytest.param("jazzy", "11.2.0", "which is not of jazzy (ROS_DISTRO)", marks=pytest.mark.slow),
    ],
)
def test_a_distribution_that_it_does_not_know_is_a_warning_and_every_other_line_is_told(
    ros_domain, tmp_path, name, version, told
):
    """As its user has it: rclpy's metadata say another version, ROS_DISTRO another name; whatever else works does."""
    metadata = tmp_path / f"ros_rclpy-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: ros-rclpy\nVersion: {version}\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    _, found = doctor(environment=os.environ | {"PYTHONPATH": path, "ROS_DISTRO": name})
    level, _, text, fix = one(found, "ROS")
    assert (level, told in text) == ("WARN", True), text
    assert fix and one(found, "RMW")[0] == "OK" and one(found, "QoS")[0] == "OK"
    assert {"shared memory", "checkpoint", "adapters", "memory"} <= {subject for _, subject, *_ in found}
    assert not [text for level, subject, text, _ in found if level == "FAIL" and subject != "shared memory"]


def test_a_version_of_rclpy_that_cannot_be_read_is_unknown(monkeypatch, tmp_path):
    manifest = tmp_path / "share" / "rclpy" / "package.xml"
    manifest.parent.mkdir(parents=True)
    manifest.write_text("<package><version>11")
    monkeypatch.setattr(ros, "prefixes", lambda: [tmp_path])
    monkeypatch.setattr(ros, "installed", lambda name: None)
    assert ros.distribution_name({"ROS_DISTRO": "lyrical"}) == ("lyrical", "")
    manifest.write_text("<package><version>11.2.0</version></package>")
    assert ros.distribution_name({}) == ("", "11.2.0")


def test_a_report_has_every_fix_and_a_count():
    text = lines([ok("a", "well"), warn("bb", "doubtful", "look"), fail("c", "broken", "fix it")])
    assert text[0] == "OK    a   well"
    assert text[2].strip() == "fix: look" and text[4].strip() == "fix: fix it"
    assert text[-1] == "1 OK, 1 WARN, 1 FAIL"


def test_choices_of_the_transport_are_those_that_launch_leaves_alone():
    for name in CHOICES_OF_THE_USER:
        assert transport_of({name: str(CONFIG / "dds.xml")}).source.startswith(name)


def test_a_mismatch_that_concerns_the_node_or_a_camera_is_a_failure():
    mismatches = (
        Mismatch("/image", "/driver", "/viewer", "Best effort publisher and reliable subscription"),
        Mismatch("/dysl_vla/twist", "/dysl_vla", "/servo", "Volatile publisher and transient local subscription"),
        Mismatch("/else", "/a", "/b", "Deadline of the publisher is longer"),
    )
    examination = Examination()
    snapshot = Snapshot(
        "rmw_fastrtps_cpp", 1.0, vla_nodes=(VlaNode("/dysl_vla"),), cameras=(Camera("/image"),), mismatches=mismatches
    )
    examination.__dict__["_looked"] = (snapshot, "")
    found = list(qos.quality_of_service(examination))
    assert [finding.level for finding in found] == [Level.FAIL, Level.FAIL, Level.WARN]
    assert [finding.fix.split(",")[0] for finding in found] == [
        "subscribe best effort", "subscribe volatile", "let the subscription ask for no deadline"
    ]  # fmt: skip

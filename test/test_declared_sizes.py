"""Sizes that a file says of itself are held against what is there and a limit: some kilobytes never take gigabytes."""

import json
import os
import shutil
import sqlite3
import struct
from pathlib import Path

import lz4.frame
import numpy as np
import pytest
import zstandard
from mcap.writer import CompressionType
from rosbags.rosbag2 import CompressionMode, StoragePlugin

from dysl_vla_ros.bags.reader import BagReader
from dysl_vla_ros.bags.unpacking import LARGEST_UNPACKED, decompressed_prefix, zstd_ends_whole
from dysl_vla_ros.commands.main import main
from dysl_vla_ros.errors import BagError, CheckpointError, DataError
from dysl_vla_ros.files import sha256
from dysl_vla_ros.policies.weights_header import read_shapes
from dysl_vla_ros.simulation.tasks import TASKS
from dysl_vla_ros.training.dataset import load_episodes
from noise_episodes import write_noise_episodes
from peak_memory import peaks
from small_bags import said, write_mcap, write_rosbags
from tiny_checkpoint import make_tiny_checkpoint, make_tiny_dysl

MIB = 2**20
SMALL = 64 * MIB  # what a reader may take for any file of some kilobytes that is refused by what it says
UNPACKING = LARGEST_UNPACKED + LARGEST_UNPACKED // 4  # and where it must unpack to find out: a growing buffer has room
HUGE = b"\xff\xff\xff\xff\xff\xff\xff\x7f"  # 2^63 - 1, or 2^32 - 1 and 2^31 - 1


def zstd_of_zeros(size: int, declared: int | None = None) -> bytes:
    """Return a zstd frame of a few bytes for each 128 kB; ``declared``: what its head says, None: nothing."""
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x38" if declared is None else b"\xc0\x38" + struct.pack("<Q", declared))
    blocks = [struct.pack("<I", 1 << 20 | 1 << 1)] * (size // 2**17)  # 128 kB of one byte, which is 0
    return head + b"".join(blocks) + b"\x01\x00\x00"  # and a last one of nothing


def mcap_of(records: bytes) -> bytes:
    magic = b"\x89MCAP0\r\n"
    return magic + records + magic


def record(opcode: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(body) if length is None else length) + body


def chunk(compression: str, data: bytes, uncompressed: int) -> bytes:
    name = struct.pack("<I", len(compression)) + compression.encode()
    return record(6, struct.pack("<QQQI", 0, 0, uncompressed, 0) + name + struct.pack("<Q", len(data)) + data)


def test_what_is_made_here_for_a_gigabyte_unpacks_to_it():
    packed = zstd_of_zeros(2 * MIB)
    assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == bytes(2 * MIB)
    assert len(zstd_of_zeros(1024 * MIB)) < 40_000


def bags_that_say_too_much(folder: Path) -> dict[str, tuple[Path, str]]:
    """Write bags of some kilobytes; return for each the path and what its refusal must say."""
    gigabyte, zeros = zstd_of_zeros(1024 * MIB), lz4.frame.compress(bytes(300 * MIB))
    files = {
        "a chunk that is a gigabyte": (mcap_of(chunk("zstd", gigabyte, 1024 * MIB)), str(1024 * MIB)),
        "a chunk that says it is small": (mcap_of(chunk("zstd", gigabyte, 1000)), "unpacks to more than 1000 bytes"),
        "a chunk whose frame says 2^40": (mcap_of(chunk("zstd", zstd_of_zeros(MIB, 2**40), MIB)), str(2**40)),
        "a chunk that says 2^63": (mcap_of(chunk("zstd", zstd_of_zeros(MIB), 2**63)), str(2**63)),
        "lz4": (mcap_of(chunk("lz4", zeros, 300 * MIB)), str(300 * MIB)),
        "lz4 that says it is small": (mcap_of(chunk("lz4", zeros, 9)), "more than 9 bytes"),
        "a record of 2^62 bytes": (mcap_of(record(5, b"1234", 2**62)), "cut off at byte 8"),
        "a chunk of 2^62 bytes": (mcap_of(record(6, b"1234", 2**62)), "cut off"),
    }  # fmt: skip
    found = {}
    for number, (name, (content, text)) in enumerate(files.items()):
        path = folder / f"{number}.mcap"
        path.write_bytes(content)
        found[name] = (path, text)
    for name, content, text in (
        ("a file that says 2^50", zstd_of_zeros(MIB, 2**50), str(2**50)),
        ("a file of zeros", zstd_of_zeros(128 * MIB), "first bytes are not those"),
    ):
        path = folder / f"{name}.mcap.zstd"
        path.write_bytes(content)
        found[name] = (path, text)
    for column in ("data BLOB AS (zeroblob(1000000000))", "data BLOB"):
        path = folder / f"{len(column)}.db3"
        with sqlite3.connect(path) as database:
            database.executescript(
                "CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT, type TEXT, serialization_format TEXT);"
                f"CREATE TABLE messages (id INTEGER PRIMARY KEY, topic_id INTEGER, timestamp INTEGER, {column});"
                "INSERT INTO topics VALUES (1, '/a', 'std_msgs/msg/String', 'cdr');"
            )
            if "AS" in column:
                database.execute("INSERT INTO messages (topic_id, timestamp) VALUES (1, 1)")
            else:
                database.execute("INSERT INTO messages VALUES (1, 1, 1, ?)", (gigabyte,))
        database.close()
        found[column] = (path, "computed, not stored" if "AS" in column else f"at most {LARGEST_UNPACKED} are read")
    aliased = folder / "aliased"
    aliased.mkdir()
    shutil.copy(folder / "0.mcap", aliased)
    lists = "".join(f"  a{n + 1}: &a{n + 1} [{', '.join([f'*a{n}'] * 9)}]\n" for n in range(9))
    (aliased / "metadata.yaml").write_text(
        f"rosbag2_bagfile_information:\n  a0: &a0 [x]\n{lists}  relative_file_paths: [*a9]\n"
    )
    piped = folder / "piped"
    piped.mkdir()
    os.mkfifo(piped / "a.mcap")
    found["a pipe"] = (piped, "a.mcap is a pipe or device")
    found["metadata whose names are lists of lists"] = (aliased, "is not a list of names")
    return found


def test_no_bag_of_some_kilobytes_takes_more_memory_than_the_limit_whatever_it_says(tmp_path):
    cases = bags_that_say_too_much(tmp_path)
    good = write_rosbags(tmp_path / "good", said(20))
    for (name, (path, text)), peak in zip(
        cases.items(), peaks("bag", [path for path, _ in cases.values()], good), strict=True
    ):
        assert text in peak.refused, f"{name}: {peak.refused}"
        assert path.name in peak.refused, f"{name}: {peak.refused}"
        unpacks = name == "data BLOB"  # a message says nothing of its size beside what its frame says
        assert peak.bytes < (UNPACKING if unpacks else SMALL), f"{name}: {peak.bytes / MIB:.0f} MiB"


@pytest.mark.slow
def test_wherever_a_huge_number_stands_in_a_bag_reading_it_takes_no_memory(tmp_path):
    good = write_rosbags(tmp_path / "packed", said(20), StoragePlugin.SQLITE3, CompressionMode.MESSAGE)
    files = [
        write_mcap(tmp_path / "chunks.mcap", said(12), CompressionType.ZSTD),
        write_mcap(tmp_path / "lz4.mcap", said(12), CompressionType.LZ4),
        write_mcap(tmp_path / "plain.mcap", said(12), chunked=False),
    ]
    paths = []
    for file in files:
        whole = file.read_bytes()
        for place in range(8, len(whole) - len(HUGE), 5):
            paths.append(tmp_path / f"{file.stem}-{place}.mcap")
            paths[-1].write_bytes(whole[:place] + HUGE + whole[place + len(HUGE) :])
    whole = good.read_bytes()
    for place in range(0, len(whole) - len(HUGE), len(whole) // 150):
        paths.append(tmp_path / f"packed-{place}.db3")
        paths[-1].write_bytes(whole[:place] + HUGE + whole[place + len(HUGE) :])
    for path, peak in zip(paths, peaks("bag", paths, good), strict=True):
        assert peak.bytes < SMALL, f"{path.name}: {peak.bytes / MIB:.0f} MiB, {peak.refused}"


def test_a_message_of_the_largest_size_is_read_and_one_byte_more_is_refused():
    packed = zstandard.ZstdCompressor().compress(bytes(LARGEST_UNPACKED))
    assert decompressed_prefix("zstd", packed) == (True, bytes(LARGEST_UNPACKED))
    with pytest.raises(ValueError, match=f"{LARGEST_UNPACKED + 1} bytes, at most {LARGEST_UNPACKED} are read"):
        decompressed_prefix("zstd", zstandard.ZstdCompressor().compress(bytes(LARGEST_UNPACKED + 1)))


@pytest.mark.parametrize("size", [0, 1, 5000, 300_000])
@pytest.mark.parametrize("kind", ["one frame", "no size in the head", "several frames", "with a checksum"])
def test_a_frame_ends_whole_only_where_it_does(tmp_path, size, kind):
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    if kind == "no size in the head":
        packer = zstandard.ZstdCompressor().compressobj()
        packed = packer.compress(content) + packer.flush()
    else:
        packed = zstandard.ZstdCompressor(write_checksum=kind == "with a checksum").compress(content)
    if kind == "several frames":
        packed += b"\x50\x2a\x4d\x18\x03\x00\x00\x00abc" + packed  # and one that is to be skipped between them
    path = tmp_path / "packed"
    ends = []
    for length in sorted({*range(0, len(packed), max(1, len(packed) // 100)), len(packed)}):
        path.write_bytes(packed[:length])
        with path.open("rb") as source:
            if zstd_ends_whole(source):
                ends.append(length)
    assert ends[-1] == len(packed)
    assert decompressed_prefix("zstd", packed) == (True, content * (2 if kind == "several frames" else 1))
    assert len(ends) <= (4 if kind == "several frames" else 2), "where a frame ends, and where there is nothing"


def test_a_packed_file_for_which_the_disk_has_no_room_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(2**40, 2**40, 65 * MIB))
    path = tmp_path / "a.mcap.zstd"
    path.write_bytes(zstd_of_zeros(2 * MIB))
    with pytest.raises(BagError, match=rf"a\.mcap\.zstd unpacks to more than the {MIB} bytes .*TMPDIR"):
        BagReader(path)


# -- checkpoints ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("whole") / "base", layers=3)
    make_tiny_dysl(folder / "dysl", folder)
    return folder


def with_sizes(whole: Path, folder: Path, file: str, part: str, **sizes: object) -> Path:
    """Copy a checkpoint, other sizes in one of its config.json."""
    shutil.copytree(whole, folder)
    config = json.loads((folder / file).read_text())
    config[part] |= sizes
    (folder / file).write_text(json.dumps(config))
    return folder


def with_header(whole: Path, folder: Path, header: bytes, length: int | None = None, rest: bytes = b"") -> Path:
    """Copy a checkpoint, weights that begin with such a header in place of its own, with the right hash."""
    shutil.copytree(whole, folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + rest)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"files": {weights.name: sha256(weights)}}))
    return folder


def with_pipe(whole: Path, folder: Path, file: str) -> Path:
    """Copy a checkpoint, a pipe that nobody writes to in place of a file."""
    shutil.copytree(whole, folder)
    (folder / file).unlink()
    os.mkfifo(folder / file)
    return folder


def of_tensor(shape: list[int], begin: int, end: int) -> bytes:
    return json.dumps({"a": {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}}).encode()


def checkpoints_that_say_too_much(whole: Path, folder: Path) -> dict[str, tuple[Path, str, str]]:
    """Return for each checkpoint its path, the file that its refusal must name, and what it must say."""
    model, modules = ("config.json", "model"), ("dysl/config.json", "modules")
    weights, adapters = "model.safetensors", "adapters.safetensors"
    action = json.loads((whole / "config.json").read_text())["model"]["action"] | {"horizon": 4096}
    sides = {"width": 4096, "heads": 32, "feed_forward": 4096}
    sizes = [
        (model, {"width": 4096, "heads": 32}, weights, "expected (4096"),
        (model, {"feed_forward": 4096}, weights, "4096"),
        (model, {"layers": 4096}, "config.json", "layers is 4096"),
        (model, {"layers": 4096, **sides}, "config.json", "layers is 4096"),
        (model, {"max_words": 4096}, weights, "places"),
        (model, {"cameras": {"image": 4096, "wrist_image": 4096}}, weights, "places"),
        (model, {"action": action}, weights, "head"),
        (modules, {"bottleneck": 65536}, adapters, "65536"),
        (modules, {"controller_width": 65536}, adapters, "65536"),
        (modules, {"queries": 65536}, adapters, "65536"),
    ]
    headers = {
        "header of 2^40": (b"{}", 2**40, str(2**40)),
        "shape of 2^40": (of_tensor([2**20, 2**20], 0, 8), None, "8 bytes are there"),
        "shape of many sides": (of_tensor([2**62] * 12, 0, 8), None, "8 bytes are there"),
        "place of 2^40": (of_tensor([4], 2**40, 2**40 + 8), None, "8 bytes are there"),
        "deep": (b"[" * 50_000, None, "header"),
    }
    found = {}
    for (file, part), values, named, text in sizes:
        name = f"{part} {', '.join(values)}"
        found[name] = (with_sizes(whole, folder / name, file, part, **values), named, text)
    for name, (header, length, text) in headers.items():
        found[name] = (with_header(whole, folder / name, header, length, bytes(8)), weights, text)
    found["a pipe, config"] = (with_pipe(whole, folder / "piped", "config.json"), "config.json", "is a pipe")
    found["a pipe, weights"] = (with_pipe(whole, folder / "piped too", weights), weights, "is a pipe")
    return found


def test_no_checkpoint_of_some_kilobytes_takes_more_memory_than_the_limit_whatever_it_says(whole, tmp_path):
    cases = checkpoints_that_say_too_much(whole, tmp_path)
    found = peaks("checkpoint", [path for path, *_ in cases.values()], whole)
    for (name, (_, file, text)), peak in zip(cases.items(), found, strict=True):
        assert text in peak.refused, f"{name}: {peak.refused}"
        assert file in peak.refused, f"{name}: {peak.refused}"
        assert peak.bytes < SMALL, f"{name}: {peak.bytes / MIB:.0f} MiB"


def test_a_config_that_is_huge_or_no_file_is_refused_before_it_is_read(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "base")
    config = tmp_path / "base" / "config.json"
    with config.open("ab") as file:
        file.truncate(2**40)  # of zeros, which take no room on the disk
    assert main(["inspect", str(tmp_path / "base")]) == 2
    assert f"{config} has {2**40} bytes, at most" in capsys.readouterr().err


@pytest.mark.parametrize("place", [0, 8, 40])
def test_a_header_is_read_as_it_was_written_or_refused(whole, tmp_path, place):
    weights = whole / "model.safetensors"
    shapes = read_shapes(weights)
    assert shapes["words.weight"] == (7, 32)
    content = weights.read_bytes()
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(content[:place] + HUGE + content[place + 8 :])
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors is damaged"):
        read_shapes(damaged)


# -- demonstrations ---------------------------------------------------------------------------------------------------


def test_no_episode_takes_more_memory_than_is_there_whatever_its_arrays_say(tmp_path):
    good = write_noise_episodes(tmp_path / "good", ["reach"], [6] * 5)
    cases = {"(6, 4)": "(6, 2**33)", "(6, 6)": "(2**40, 6)", "'<f4'": "'|O'", "(6, 96, 96, 3)": "(2**30, 96, 96, 3)"}
    folders = []
    for number, (old, new) in enumerate(cases.items()):
        folders.append(tmp_path / str(number))
        shutil.copytree(good, folders[-1])
        path = folders[-1] / "reach" / "00000.npz"
        content = path.read_bytes()
        new = new.replace("2**33", str(2**33)).replace("2**40", str(2**40)).replace("2**30", str(2**30))
        padded = old.encode() + b", }"
        assert padded in content or old.startswith("'")
        grown = new.encode() + b", }"
        if old.startswith("'"):
            content = content.replace(old.encode(), new.encode() + b" ")
        else:
            content = content.replace(padded + b" " * (len(grown) - len(padded)), grown)
        assert content != path.read_bytes()
        path.write_bytes(content)
    for (name, folder), peak in zip(
        zip(cases, folders, strict=True), peaks("demonstrations", folders, good), strict=True
    ):
        assert "00000.npz cannot be read" in peak.refused, f"{name}: {peak.refused}"
        assert peak.bytes < SMALL, f"{name} of {folder}: {peak.bytes / MIB:.0f} MiB"


def test_a_flipped_bit_in_any_array_that_is_learned_from_is_still_noticed_by_its_checksum(tmp_path):
    write_noise_episodes(tmp_path, ["reach"], [6] * 5)
    path = tmp_path / "reach" / "00000.npz"
    whole = path.read_bytes()
    for name in ("proprioception", "action", "scene"):
        with np.load(path) as episode:
            values = episode[name].tobytes()
        place = whole.index(values) + len(values) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match=r"00000\.npz cannot be read: Bad CRC-32"):
            load_episodes(tmp_path, [TASKS["reach"]], quiet=True)
        path.write_bytes(whole)

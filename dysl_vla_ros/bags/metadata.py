"""``metadata.yaml`` of rosbag2, which ``ros2 bag play`` and ``info`` read: version 9, that of Jazzy and Kilted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

VERSION = 9
NO_LIMIT = 2**63 - 1  # ns: no deadline, no lifespan


@dataclass(frozen=True)
class OfferedQos:
    """What a publisher offered, so that ``ros2 bag play`` offers it again; words as rosbag2 writes them."""

    reliability: str = "reliable"  # or best_effort
    durability: str = "volatile"  # or transient_local
    history: str = "unknown"  # discovery does not tell: keep_last, keep_all
    depth: int = 0
    deadline: int = NO_LIMIT  # ns
    lifespan: int = NO_LIMIT  # ns
    liveliness: str = "automatic"  # or manual_by_topic
    lease: int = NO_LIMIT  # ns, of the liveliness

    def as_yaml(self) -> dict[str, Any]:
        """Return the entry of ``offered_qos_profiles``."""
        return {
            "history": self.history,
            "depth": self.depth,
            "reliability": self.reliability,
            "durability": self.durability,
            "deadline": _time(self.deadline),
            "lifespan": _time(self.lifespan),
            "liveliness": self.liveliness,
            "liveliness_lease_duration": _time(self.lease),
            "avoid_ros_namespace_conventions": False,
        }


@dataclass
class WrittenTopic:
    """A topic of a bag that is being written."""

    name: str
    type: str
    hash: str  # RIHS01 of the type, "" where it is unknown
    qos: tuple[OfferedQos, ...] = ()
    count: int = 0  # messages


@dataclass
class WrittenFile:
    """What is known of a bag's one file."""

    name: str
    topics: Sequence[WrittenTopic] = ()
    start: int = 0  # ns, of the first message
    end: int = 0  # ns, of the last one
    ros_distro: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)


def qos_text(profiles: Sequence[OfferedQos]) -> str:
    """Return profiles as an mcap channel's metadata has them."""
    return str(yaml.safe_dump([profile.as_yaml() for profile in profiles], sort_keys=False)) if profiles else ""


def information(file: WrittenFile) -> dict[str, Any]:
    """Return what stands under ``rosbag2_bagfile_information``."""
    count = sum(topic.count for topic in file.topics)
    span = {
        "duration": {"nanoseconds": max(file.end - file.start, 0)},
        "starting_time": {"nanoseconds_since_epoch": file.start},
        "message_count": count,
    }
    return {
        "version": VERSION,
        "storage_identifier": "mcap",
        **span,
        "topics_with_message_count": [
            {
                "topic_metadata": {
                    "name": topic.name,
                    "type": topic.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [profile.as_yaml() for profile in topic.qos],
                    "type_description_hash": topic.hash,
                },
                "message_count": topic.count,
            }
            for topic in file.topics
        ],
        "compression_format": "",
        "compression_mode": "",
        "relative_file_paths": [file.name],
        "files": [{"path": file.name, **span}],
        "custom_data": dict(file.custom) or None,
        "ros_distro": file.ros_distro or "unknown",
    }


def metadata_text(file: WrittenFile) -> str:
    """Return the whole of ``metadata.yaml``."""
    content = {"rosbag2_bagfile_information": information(file)}
    return str(yaml.dump(content, Dumper=_WithoutAnchors, sort_keys=False))


class _WithoutAnchors(yaml.SafeDumper):
    """Writes a value that stands in two places twice, as rosbag2 does."""

    def ignore_aliases(self, data: Any) -> bool:
        """Say that nothing is to be referred to."""
        return True


def _time(nanoseconds: int) -> dict[str, int]:
    return {"sec": nanoseconds // 10**9, "nsec": nanoseconds % 10**9}

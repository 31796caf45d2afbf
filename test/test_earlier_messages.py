"""Bags of earlier releases: their own definitions lack fields that came later, and are read all the same."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags.interfaces import Nodetype
from rosbags.typesys import get_types_from_msg
from rosbags.typesys.store import Typestore

from dysl_vla_ros.bags.message_types import MessageTypes, known_store
from dysl_vla_ros.bags.storage import Definition

MESSAGES = Path(__file__).parents[1] / "msg"
LATER = {"SkipReport": "actions_to_play", "SceneState": "object_moved"}  # message -> a field that came later
EPISODE = 7


def made(store: Typestore, name: str) -> Any:
    """Return a message whose numbers are all EPISODE."""
    values = {}
    for field, (kind, content) in store.fielddefs[name][1]:
        if kind == Nodetype.NAME:
            values[field] = made(store, content)
        elif kind == Nodetype.SEQUENCE:
            values[field] = np.zeros(0, content[0][1][0].replace("boolean", "bool"))
        else:
            values[field] = {"string": "", "bool": False}.get(content[0], EPISODE)
    return store.types[name](**values)


@pytest.mark.parametrize(("message", "later"), LATER.items())
def test_a_message_without_a_field_that_came_later_is_read(message: str, later: str) -> None:
    name, now = f"dysl_vla_ros/msg/{message}", (MESSAGES / f"{message}.msg").read_text()
    before = re.sub(rf"^\w+ {later} .*\n", "", now, flags=re.MULTILINE)
    assert len(before.splitlines()) == len(now.splitlines()) - 1
    store = known_store("std_msgs/msg/Header")
    store.register(get_types_from_msg(before, name))
    written = bytes(store.serialize_cdr(made(store, name), name))

    types = MessageTypes({name: Definition("ros2msg", before)})
    assert not types.faults
    read = types.deserialise(name, written)
    assert (read.episode, read.header.stamp.sec, hasattr(read, later)) == (EPISODE, EPISODE, False)

#!/usr/bin/env python3
"""vla_node on an rclpy that does not say whose a message is, as Jazzy's (7.1.6): for test_doubled.py.

What it leaves out was seen there: a callback's second parameter has the number under which a message was sent, and no
``publisher_gid``.
"""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from rclpy.node import Node

from dysl_vla_ros.nodes.vla_node import main

subscribe = Node.create_subscription


def takes_info(callback: Callable[..., Any]) -> bool:
    try:
        inspect.signature(callback).bind(object(), object())
        return True
    except TypeError:
        return False


def subscribe_without_gid(
    self: Node, msg_type: type, topic: str, callback: Callable[..., Any], *arguments: Any, **options: Any
) -> Any:
    def hear(message: Any, info: Any) -> None:
        callback(message, {name: value for name, value in info.items() if name != "publisher_gid"})

    return subscribe(self, msg_type, topic, hear if takes_info(callback) else callback, *arguments, **options)


Node.create_subscription = subscribe_without_gid  # type: ignore[method-assign, assignment]

if __name__ == "__main__":
    sys.exit(main())

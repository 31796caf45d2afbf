#!/usr/bin/env python3
"""A lifecycle node of rclpy's own that does nothing: what its topics alone cost in memory from cycle to cycle."""

import contextlib
from typing import Any

import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from sensor_msgs.msg import Image

TOPICS = 6  # subscriptions and as many publishers, about what vla_node has


class Bare(LifecycleNode):
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        kinds: list[Any] = [Image, PoseStamped] * (TOPICS // 2)
        self._heard = [self.create_subscription(kind, f"in{n}", lambda _: None, 10) for n, kind in enumerate(kinds)]
        self._said = [self.create_lifecycle_publisher(TwistStamped, f"out{n}", 10) for n in range(TOPICS)]
        return TransitionCallbackReturn.SUCCESS

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        for subscription in self._heard:
            self.destroy_subscription(subscription)
        for publisher in self._said:
            self.destroy_lifecycle_publisher(publisher)
        self._heard, self._said = [], []
        return TransitionCallbackReturn.SUCCESS


if __name__ == "__main__":
    rclpy.init()
    with contextlib.suppress(KeyboardInterrupt):
        rclpy.spin(Bare("bare"))

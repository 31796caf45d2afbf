"""One input of the node from a process of its own, until it is killed: NODE_NAME TOPIC KIND RATE [standby].

``standby``: it writes a line when it is ready, and publishes from when it reads one.
"""

import sys
import threading
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import PoseStamped
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String

SIZE = 48  # pixels a side
KINDS = {
    "image": Image,
    "pose": PoseStamped,
    "opening": Float64,
    "zeros": JointState,
    "clock": Clock,
    "instruction": String,
}


def message(kind: str, now: Any, random: np.random.Generator) -> Any:
    """Make a message of the kind; ``now`` is its stamp."""
    if kind == "image":
        pixels = random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8).tobytes()
        made = Image(height=SIZE, width=SIZE, encoding="rgb8", step=3 * SIZE, data=pixels)
        made.header.stamp = now
    elif kind == "pose":
        made = PoseStamped()
        made.header.stamp, made.header.frame_id = now, "base"
        made.pose.position.y, made.pose.position.z = 0.5, 0.1
    elif kind == "zeros":  # joint_state_publisher without its window
        made = JointState(name=["shoulder", "elbow", "finger"], position=[0.0, 0.0, 0.0])
        made.header.stamp = now
    elif kind == "clock":
        made = Clock(clock=now)
    elif kind == "opening":
        made = Float64(data=1.0)
    else:
        made = String(data="close the drawer")
    return made


def main() -> None:
    name, topic, kind, rate = sys.argv[1:5]
    rclpy.init()
    node = rclpy.create_node(name)
    qos = 10 if kind == "instruction" else qos_profile_sensor_data
    publisher = node.create_publisher(KINDS[kind], topic, qos)
    if "standby" in sys.argv:
        print("ready", flush=True)
        sys.stdin.readline()
    random, never = np.random.default_rng(1), threading.Event()
    while not never.wait(1.0 / float(rate)):
        publisher.publish(message(kind, node.get_clock().now().to_msg(), random))


if __name__ == "__main__":
    main()

"""A camera as a process of its own, for test_transport.py: TOPIC FRAMES RATE, 640x480 rgb8, best effort.

The two sides of DDS find each other at different times, and what is sent in between is lost. So it sends images named
``searching`` until it reads a line, then ``0``, ``1`` and so on.
"""

import select
import sys
import time

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

WIDTH, HEIGHT = 640, 480
SEARCHING = "searching"


def main() -> None:
    topic, frames, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    rclpy.init()
    node = rclpy.create_node("image_publisher")
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=WIDTH * 3)
    image.header.frame_id, image.data = SEARCHING, bytes(WIDTH * HEIGHT * 3)
    deadline = time.monotonic() + 30.0
    while not select.select([sys.stdin], [], [], 1.0 / rate)[0]:
        publisher.publish(image)
        if time.monotonic() > deadline:
            sys.exit("no subscriber within 30 s")
    sys.stdin.readline()
    started = time.monotonic()
    for frame in range(frames):
        image.header.frame_id = str(frame)
        image.data = bytes([frame % 256]) * (WIDTH * HEIGHT * 3)
        time.sleep(max(started + frame / rate - time.monotonic(), 0.0))
        publisher.publish(image)
    sys.stdin.read()  # the last frames may still be on their way: stay until the test has seen them
    node.destroy_node()
    rclpy.shutdown()


if __name__ == "__main__":
    main()

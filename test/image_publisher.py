"""A camera as a process of its own, for test_transport.py: TOPIC FRAMES RATE, 640x480 rgb8, best effort."""

import sys
import time

import rclpy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

WIDTH, HEIGHT = 640, 480


def main() -> None:
    topic, frames, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    rclpy.init()
    node = rclpy.create_node("image_publisher")
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    deadline = time.monotonic() + 30.0
    while publisher.get_subscription_count() == 0:
        if time.monotonic() > deadline:
            sys.exit("no subscriber within 30 s")
        time.sleep(0.01)
    image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=WIDTH * 3)
    started = time.monotonic()
    for frame in range(frames):
        image.header.frame_id = str(frame)
        image.data = bytes([frame % 256]) * (WIDTH * HEIGHT * 3)
        time.sleep(max(started + frame / rate - time.monotonic(), 0.0))
        publisher.publish(image)
    sys.stdin.read()  # the last frames may still be on their way: stay until the test has seen them
    node.destroy_node()
    rclpy.shutdown()


main()

"""How many requests of a service may wait."""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

# rclpy's default is 10: what comes in at once beyond that is dropped, and its client waits for ever.
DEEP = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.VOLATILE)

"""What messages say, as arrays and values: images, proprioception, instructions. No ROS is imported.

A message is anything with the fields of its ROS definition, so that the node (rclpy) and recordings (rosbags) are read
by the same code.
"""

from dysl_vla_ros.readings.images import ENCODINGS, MAX_PIXELS, MAX_SIDE
from dysl_vla_ros.readings.images import opencv as require_opencv
from dysl_vla_ros.readings.instructions import MAX_INSTRUCTION, instruction_fault, instruction_hash
from dysl_vla_ros.readings.pictures import check, needs_conversion, picture
from dysl_vla_ros.readings.proprioception import joint_values, opening_value, pose_values
from dysl_vla_ros.readings.stamps import nanoseconds, seconds

__all__ = [
    "ENCODINGS",
    "MAX_INSTRUCTION",
    "MAX_PIXELS",
    "MAX_SIDE",
    "check",
    "instruction_fault",
    "instruction_hash",
    "joint_values",
    "nanoseconds",
    "needs_conversion",
    "opening_value",
    "picture",
    "pose_values",
    "require_opencv",
    "seconds",
]

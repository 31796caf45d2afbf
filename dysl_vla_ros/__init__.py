"""DySL-VLA for ROS 2: vision-language-action models whose layers are skipped when the moment allows it.

The method (``skipping``) knows no ROS; the ROS code (``nodes``) contains no method. ``docs/architecture.md``
says which package answers which question and which way the imports point.
"""

__version__ = "0.1.0"

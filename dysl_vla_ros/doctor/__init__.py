"""``dysl_vla doctor``: what may keep a robot from working, each with its fix. Runs without ROS and without packages.

Nothing here imports more than the standard library and the base modules before a check needs it: a doctor who falls
ill of the missing package cannot name it.
"""

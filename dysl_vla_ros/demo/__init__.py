"""``dysl_vla demo``: starts robot and policy as ROS 2 nodes, gives instructions, shows and records what happens."""

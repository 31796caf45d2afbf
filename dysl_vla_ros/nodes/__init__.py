"""The ROS 2 side: the lifecycle node of a policy, and a simulated robot. Imports no torch."""

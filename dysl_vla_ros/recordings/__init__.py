"""Bags as the policy's observations: topics, moments, what is learned from and what is held out. No ROS."""

"""What is kept of episodes and recordings played, and the figures made of it: plain values, no torch, no ROS."""

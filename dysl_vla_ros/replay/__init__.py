"""A recording through the policy again: full depth and skipping on the same moments. No ROS."""

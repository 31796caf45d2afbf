"""Closed-loop success in the simulator, and the conditions of its episodes."""

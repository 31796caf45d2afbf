"""LeRobot's checkpoints: a folder read and checked, its policy loaded, its modules driven from outside."""

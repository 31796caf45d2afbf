"""A process that computes for a command, in the Python of a policy's library, into which nothing is installed.

The command's own Python reads recordings, shows bars and prints; frames lie in a file that both have open.
"""

"""The policy in a process of its own: messages, frames in shared memory, process, server, client (without torch)."""

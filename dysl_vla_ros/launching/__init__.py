"""What the launch files share: arguments and what they lead to, the nodes as launch actions, start and respawn."""

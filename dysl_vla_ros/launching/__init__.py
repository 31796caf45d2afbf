"""What the launch files share: their arguments and what these lead to, the nodes as launch actions, start and respawn."""

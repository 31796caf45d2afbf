"""VLA families behind one interface: an observation in, a stack of layers in between, an action chunk out."""

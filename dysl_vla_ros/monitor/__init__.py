"""``dysl_vla monitor``: a running VLA node, seen through its topics alone."""

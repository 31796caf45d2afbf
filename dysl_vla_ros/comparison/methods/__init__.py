"""The methods that are compared in closed loop, one file each, all through the same ``Runtime.step``.

Each changes what it names and nothing else; "unguided" is without prior, verification and warm-up, which are all
guidance's. A new one is a file with a :class:`~dysl_vla_ros.comparison.methods.method.Method` and one line in
``registry.py``: ``dysl_vla evaluate --methods``, its tables and pictures, its errors and the tests then have it.
"""

"""The verbs of the ``dysl_vla`` program: one file a verb, thin over a function that one can import."""

"""The verbs of the ``dysl_vla`` program: one file a verb, thin over a function that one can import."""

INSTALL_TORCH = "`make setup-training` in the package's folder, or pip install -r requirements/torch.txt"

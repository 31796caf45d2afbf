"""What computes a step: one interface (``engine``), and an engine for each runtime below it.

``torch`` runs every family and is what training, calibration and experiments use; ``onnx`` runs what `dysl_vla export`
wrote, in a process without torch. The order of a step is the same for both: ``runtime/step.py``, which knows neither.
"""

TORCH, ONNX = "torch", "onnx"  # values of model.runtime
RUNTIMES = (TORCH, ONNX)

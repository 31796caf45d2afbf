"""ONNX Runtime as the engine: runs what `dysl_vla export` wrote, in a process that needs no torch.

``exported`` says what an export is and refuses one of other files, ``sessions`` opens its graphs, ``policy`` and
``modules`` are a policy and its stand-ins made of them; ``exporting`` writes them, and alone imports onnx and torch.
"""

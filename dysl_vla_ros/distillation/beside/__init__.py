"""Distillation with the teacher beside the student, batch by batch: nothing is kept whose size grows with the frames.

For policies of which one frame's hidden states are megabytes. What trains here imports no more than torch, numpy and
safetensors, so that it runs in whichever Python a policy's library lives in. Small policies, whose activations fit into
memory or a file, are trained on those instead (:mod:`dysl_vla_ros.distillation.stages`).
"""

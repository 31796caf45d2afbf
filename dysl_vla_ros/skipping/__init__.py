"""The method of DySL-VLA (arXiv 2602.22896): which layers run, when, and what stands in for the skipped ones.

torch and numpy only: no ROS, no model family, no files. Start with ``partition``, then ``stack``, then ``guidance``.
"""

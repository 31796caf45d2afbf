"""Writes an export and checks it against torch: the one part that needs the package onnx, and torch beside it.

``graph`` writes nodes, ``weights`` says where their weights lie, ``reference`` and ``stand_ins`` are the graphs,
``quantised`` makes int8 of them, ``checking`` compares each with torch, ``export`` does it all in order.
"""

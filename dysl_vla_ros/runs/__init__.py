"""Runs at full depth, kept in memory: which frames are drawn of them, which episodes are held out."""

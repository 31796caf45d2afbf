"""Closed-loop success, what is kept of an episode, tables and reports."""

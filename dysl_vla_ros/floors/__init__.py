"""Floors (every block skipped whole): trained alike, played, and the smallest that loses nothing."""

"""Thresholds of a distilled policy and settings for a machine, chosen on full-depth runs. Nothing trains here."""

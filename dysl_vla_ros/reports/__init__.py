"""Charts and pages, for engineers who would rather look than read."""

"""Teaching adapters and controllers what the frozen policy does at full depth."""

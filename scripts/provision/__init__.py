"""What `scripts/setup` is made of. Needs nothing beyond Python's standard library (3.9 or later)."""

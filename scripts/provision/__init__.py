"""The parts of `scripts/setup`. They need only Python's standard library (3.9 or later)."""

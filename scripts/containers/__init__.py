"""The parts of scripts/test-containers."""

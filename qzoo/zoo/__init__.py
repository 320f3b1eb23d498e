"""Zoos: places to push bundles to and pull them from, and whom to trust with what comes from there. No torch."""

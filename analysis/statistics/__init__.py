"""Medians with their intervals, and tests on pairs."""

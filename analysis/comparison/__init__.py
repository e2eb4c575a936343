"""Sweeps compared with each other, with a baseline, with their own history and noise."""

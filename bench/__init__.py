"""Composes cells, launches ranks, measures them and writes records."""

__version__ = "0.1.0"

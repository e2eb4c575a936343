"""Sections of a report, one per file: its rows and its notes."""

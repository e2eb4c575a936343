"""Figures of a report, each drawn from the table or from a section's rows."""

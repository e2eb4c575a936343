"""Analyzes records: statistics, predictions, figures and reports. Never imports torch."""

"""Reads Records and says what they mean: statistics, predictions, figures and reports. Never imports torch."""

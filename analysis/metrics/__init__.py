"""Metrics of one record: time, traffic, memory, utilization and scaling."""

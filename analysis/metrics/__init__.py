"""What one record says: time, traffic, memory, utilization and scaling."""

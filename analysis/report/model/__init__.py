"""What a report says, apart from how it looks: its configurations and its sections."""

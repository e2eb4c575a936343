"""The content of a report without its rendering: configurations and sections."""

"""The commands of ``python -m analysis``: each module adds its arguments and runs."""

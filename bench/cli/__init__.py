"""The command line: overrides, help, errors and the sweep's folder."""

"""The format of results: settings, records, and where they are kept. Standard library only, so that a laptop can read
what a cluster measured."""

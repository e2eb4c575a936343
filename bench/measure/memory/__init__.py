"""Memory of a step and its allocations."""

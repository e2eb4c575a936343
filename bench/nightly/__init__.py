"""The job of a GPU runner, and what a person runs by hand: ``python -m bench.nightly``."""

"""The last step of ``scripts/nightly.sh``: what the night found. The first is ``bench.preflight``."""

"""The first and the last step of ``scripts/nightly.sh``: is the machine fit, and what did the night find."""

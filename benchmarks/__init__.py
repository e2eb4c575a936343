"""How fast the suite itself is: measured, reported, never asserted as an absolute time."""

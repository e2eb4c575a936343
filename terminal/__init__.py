"""Output of every command: safe streams and tables. It imports no other part of the suite."""

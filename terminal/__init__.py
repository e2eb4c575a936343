"""What every command prints with: safe output streams and tables; the rest of the suite imports it, not the reverse."""

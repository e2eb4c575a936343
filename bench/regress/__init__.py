"""Two revisions measured side by side."""

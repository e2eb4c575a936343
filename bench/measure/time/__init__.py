"""Step times, their timeline, and drift within a run."""

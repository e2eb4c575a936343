"""MLflow: logging sweeps, importing earlier ones, and the UI."""

"""The report of a sweep: HTML, Markdown, the terminal and MLflow."""

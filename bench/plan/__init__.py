"""The cells of a sweep: what each setting resolves to, and what is not supported."""

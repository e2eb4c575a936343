"""What runs on ranks for an experiment that no sweep can make. Called by ``claims.ranks``, with plain torch."""

"""``reproduce=RECORD``: runs the cell of a record again and compares the two records."""

"""All records as one table: a row per cell, bare SI units."""

"""The result of a search for the largest batch, as columns of summary.csv."""

from __future__ import annotations

from typing import Any

from results.record import Record

SEARCH_COLUMNS = ["search_tried", "memory_limit_bytes", "max_batch", "max_batch_peak_bytes", "unfit_batch"]
"""Launches made, limit, largest batch per rank that fits with the peak at it, and
the smallest that does not. 0 if none fits, empty if all that was tried does."""


def search_columns(record: Record) -> dict[str, Any]:
    """``SEARCH_COLUMNS`` of a cell; None where it did not search."""
    search = record.search
    if search is None:
        return dict.fromkeys(SEARCH_COLUMNS)
    values = (len(search.tried), search.limit_bytes, search.largest_fit, search.peak_bytes, search.smallest_unfit)
    return dict(zip(SEARCH_COLUMNS, values, strict=True))

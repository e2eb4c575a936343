"""CSV cells that a spreadsheet reads as text, whatever a record holds: none of them is a formula."""

from __future__ import annotations

from typing import Any

import pandas as pd

BEGIN_A_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell_as_data(value: Any) -> Any:
    """The value; text that would be a formula has an apostrophe before it. Numbers stay as they are."""
    if not isinstance(value, str) or not value.startswith(BEGIN_A_FORMULA) or value == "-":
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def as_data(table: pd.DataFrame) -> pd.DataFrame:
    """The table with no formula in any cell or heading."""
    words = table.select_dtypes(["object", "string"]).map(cell_as_data)
    return table.assign(**{str(name): words[name] for name in words}).rename(columns=cell_as_data)

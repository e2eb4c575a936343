"""The collectives to measure, their sizes and iterations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.checks import ConfigError
from results.identity import as_written
from results.precision import ITEM_BYTES

KINDS = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all")

DTYPES = ("float32", "bfloat16", "float16")
"""Bytes of an element, by dtype."""

LEAST_ITERATIONS = 5

ENOUGH_BYTES = 1 << 25
"""Of large sizes only so many iterations are taken as come to so many bytes, but no fewer than the least."""


@dataclass(frozen=True)
class CollectiveOptions:
    """The options of the workload, checked."""

    kinds: list[str]
    sizes_bytes: list[int]
    """Of the whole array, ascending."""
    dtype: str

    def size_bytes(self, size: int, ranks: int) -> int:
        """The size that is run: rounded up to as many elements for each rank."""
        unit = ITEM_BYTES[self.dtype] * ranks
        return -(-size // unit) * unit


def iterations(size_bytes: int, steps: int) -> int:
    return min(steps, max(LEAST_ITERATIONS, ENOUGH_BYTES // size_bytes))


def collective_options(options: Mapping[str, Any]) -> CollectiveOptions:
    """The options in a configuration. Raises ConfigError."""
    kinds, sizes, dtype = options["kinds"], options["sizes"], options["dtype"]
    if not isinstance(kinds, list) or not kinds or not set(map(str, kinds)) <= set(KINDS):
        raise ConfigError(f"workload.kinds={as_written(kinds)} is not valid; valid: a list of {', '.join(KINDS)}")
    if not isinstance(sizes, list) or not sizes or not all(_is_size(size) for size in sizes):
        raise ConfigError(
            f"workload.sizes={as_written(sizes)} is not valid; valid: a list of whole numbers of bytes of at least 1"
        )
    if dtype not in DTYPES:
        raise ConfigError(f"workload.dtype={as_written(dtype)} is not valid; valid: {', '.join(DTYPES)}")
    return CollectiveOptions(list(dict.fromkeys(kinds)), sorted(set(sizes)), dtype)


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1

"""``workload=collectives``: what may be asked of the benchmark of collectives, and what does not apply to it.

It trains nothing: there is no model, no engine and no parity, and every knob of those is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.checks import ConfigError
from bench.engines.spec import EngineUnsupported, as_written
from bench.groups import default_option
from results.declare import each_setting
from results.settings import Config

FACTORY = "bench.measure.collectives:measure"
"""By which the workload is known: what ranks run instead of training."""

KINDS = ("all_reduce", "reduce_scatter", "all_gather", "broadcast", "all_to_all")
WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of an element, by dtype."""

BACKENDS = ("gloo", "nccl", "mpi")
HONOURED = (
    *("engine", "workload", "gpus", "device", "backend", "steps", "warmup", "repeats", "threads", "seed"),
    *("timeout_s", "resume", "reproduce", "measure.timing_breakdown"),
)
NOTHING_ASKED = ("measure.parity_steps", "measure.memory", "measure.collectives", "measure.ceiling")
"""Honoured where they ask for nothing (``measure=time``)."""

LEAST_ITERATIONS = 5
ENOUGH_BYTES = 1 << 25
"""Of large sizes only so many iterations are taken as come to so many bytes, but no fewer than the least."""


@dataclass(frozen=True)
class Asked:
    """The options of the workload, checked."""

    kinds: list[str]
    sizes_bytes: list[int]
    """Of the whole array, ascending."""
    dtype: str

    def size_bytes(self, size: int, ranks: int) -> int:
        """The size that is run: rounded up to as many elements for each rank."""
        unit = WIDTHS[self.dtype] * ranks
        return -(-size // unit) * unit


def iterations(size_bytes: int, steps: int) -> int:
    return min(steps, max(LEAST_ITERATIONS, ENOUGH_BYTES // size_bytes))


def is_asked(config: Config) -> bool:
    return bool(config.workload.get("factory") == FACTORY)


def asked(options: Mapping[str, Any]) -> Asked:
    """The options in a configuration. Raises ConfigError."""
    kinds, sizes, dtype = options["kinds"], options["sizes"], options["dtype"]
    if not isinstance(kinds, list) or not kinds or not set(map(str, kinds)) <= set(KINDS):
        raise ConfigError(f"workload.kinds={as_written(kinds)} is not valid; valid: a list of {', '.join(KINDS)}")
    if not isinstance(sizes, list) or not sizes or not all(_is_size(size) for size in sizes):
        raise ConfigError(
            f"workload.sizes={as_written(sizes)} is not valid; valid: a list of whole numbers of bytes of at least 1"
        )
    if dtype not in WIDTHS:
        raise ConfigError(f"workload.dtype={as_written(dtype)} is not valid; valid: {', '.join(WIDTHS)}")
    return Asked(list(dict.fromkeys(kinds)), sorted(set(sizes)), dtype)


def _is_size(size: object) -> bool:
    return isinstance(size, int) and not isinstance(size, bool) and size >= 1


def refuse(config: Config, backend: str) -> None:
    """Raises EngineUnsupported, naming the knob, for what does not apply; ConfigError for an invalid option."""
    asked(config.workload)
    if config.gpus < 2:
        raise EngineUnsupported(f"workload=collectives has no gpus={config.gpus}: one rank sends nothing. Valid: 2 up")
    if backend not in BACKENDS:
        raise EngineUnsupported(f"workload=collectives has no backend={backend}. Valid: {', '.join(BACKENDS)}")
    if config.engine["name"] != default_option("engine"):
        raise EngineUnsupported(
            f"workload=collectives has no engine={config.engine['name']}: no engine runs. Valid: leave it out"
        )
    defaults = {path: value for path, _, value in each_setting(Config())}
    for path, _, value in each_setting(config):
        honoured = path in HONOURED or path.startswith(("network.", "tracking."))
        if not honoured and value != defaults[path] and not (path in NOTHING_ASKED and not value):
            raise EngineUnsupported(
                f"workload=collectives has no {path}={as_written(value)}: nothing is trained. "
                f"Valid: {as_written(defaults[path])}"
            )

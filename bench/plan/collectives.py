"""``workload=collectives``: the settings of the benchmark of collectives, and what does not apply to it.

It trains nothing: there is no model, no engine and no parity, and every setting of those is rejected.
"""

from __future__ import annotations

from bench.engines.spec import EngineUnsupported
from bench.groups import default_option
from bench.measure.communication.sizes import collective_options
from results.declare import each_setting
from results.identity import as_written
from results.settings import Config

FACTORY = "bench.measure.communication.by_size:measure"
"""Identifies the workload: what ranks run instead of training."""

BACKENDS = ("gloo", "nccl", "mpi")

HONOURED = (
    *("engine", "workload", "gpus", "device", "backend", "steps", "warmup", "repeats", "threads", "seed"),
    *("timeout_s", "resume", "reproduce", "measure.timing_breakdown"),
)

OFF_ONLY = ("measure.parity_steps", "measure.memory", "measure.collectives", "measure.ceiling")
"""Honoured only where they are off (``measure=time``)."""


def is_workload_of(config: Config) -> bool:
    return bool(config.workload.get("factory") == FACTORY)


def check_settings(config: Config, backend: str) -> None:
    """Raises EngineUnsupported, naming the setting, for what does not apply; ConfigError for an invalid option."""
    collective_options(config.workload)
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
        honoured = path in HONOURED or path.startswith(("network.", "cluster.", "tracking."))
        if not honoured and value != defaults[path] and not (path in OFF_ONLY and not value):
            raise EngineUnsupported(
                f"workload=collectives has no {path}={as_written(value)}: nothing is trained. "
                f"Valid: {as_written(defaults[path])}"
            )

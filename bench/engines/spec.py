"""The settings of an engine, and its declaration of support. Needs no torch: plans are made with it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from results.identity import as_written
from results.training_settings import NEUTRAL, Training, choices

HYPERPARAMETERS = ("momentum", "beta1", "beta2", "eps", "weight_decay")
"""Settings of optimizers; an engine that builds its own by ``bench.engines.optimizers`` honors them."""
SCHEDULE = ("lr_schedule", "lr_warmup", "lr_steps")
TAKES = {
    "sgd": ("momentum", "weight_decay"),
    "adam": ("beta1", "beta2", "eps", "weight_decay"),
    "adamw": ("beta1", "beta2", "eps", "weight_decay"),
    "rmsprop": ("momentum", "eps", "weight_decay"),
    "muon": HYPERPARAMETERS,
    "adam8bit": ("beta1", "beta2", "eps", "weight_decay"),
}
"""Which of them each optimizer has."""

FEW_HAVE = ("adam8bit",)
"""Optimizers that an engine has only if it says so."""

BLOCKS_OF_SHARDS = "optimizer=adam8bit scales moments by blocks of shards, and a single process by blocks of weights"

OPTIONAL: dict[str, Any] = NEUTRAL | {"join": False}
"""Settings that an engine may lack, each with the value that asks for nothing."""


UnsupportedCase = tuple[bool, str, str]
"""A combination of settings: whether it applies, what is unsupported, and why."""


class EngineUnsupported(Exception):
    """The engine does not support a setting; the message names the setting and the reason."""


class OptionInvalid(EngineUnsupported):
    """An option of the engine has a value that is valid at no stage; the message lists the valid ones."""


class EngineUnavailable(Exception):
    """The engine's library is not installed; the message has the command that installs it."""


@dataclass(kw_only=True)
class EngineSpec(Training):
    """The settings that an engine must honor or report as unsupported. None: the engine's own default."""

    world_size: int
    device: str
    """``cpu`` or ``cuda``."""
    backend: str
    """``gloo``, ``nccl``, or ``fake``: this is the only rank there is (``bench.worker.fake_group``)."""
    join: bool = False
    """Whether ranks may have unequal numbers of batches; the engine then has a ``join()`` context."""
    options: dict[str, Any] = field(default_factory=dict)
    """The engine's own settings, from conf/engine/NAME.yaml."""


@dataclass(frozen=True)
class Capabilities:
    """The settings that an engine supports. Unsupported combinations are rejected by ``check``."""

    stages: dict[int, str]
    """The stages that it has, and what it uses for each."""
    settings: tuple[str, ...] = ()
    """The settings of ``OPTIONAL`` that it honors at some stage."""
    precisions: tuple[str, ...] = choices("precision")
    optimizers: tuple[str, ...] = tuple(name for name in choices("optimizer") if name not in FEW_HAVE)
    backends: tuple[str, ...] = ("gloo", "nccl")
    why_not: dict[str, str] = field(default_factory=dict)
    """By setting: why anything else is unsupported. Ends the sentence "... has no precision=bf16: "."""
    only_loopback: bool = False
    """Whether its ranks have a rendezvous of their own that is limited to one host (no ``network=lab``)."""

    def check(self, engine: str, spec: EngineSpec) -> None:
        """Raises EngineUnsupported, naming the setting, if ``spec`` asks for what is not listed."""
        for name, valid in (
            ("stage", tuple(self.stages)),
            ("precision", self.precisions),
            ("optimizer", self.optimizers),
            ("backend", self.backends),
        ):
            value = getattr(spec, name)
            if value not in valid:
                why = None if value in FEW_HAVE else self.why_not.get(name)
                has = why or f"it has {', '.join(map(str, valid))}"
                raise EngineUnsupported(f"engine={engine} has no {name}={value}: {has}")
        for name in HYPERPARAMETERS:
            if getattr(spec, name) is not None and name not in TAKES[spec.optimizer]:
                raise EngineUnsupported(
                    f"engine={engine} has no {name}={as_written(getattr(spec, name))} with optimizer={spec.optimizer}; "
                    f"valid: {', '.join(TAKES[spec.optimizer])}"
                )
        for name, neutral in OPTIONAL.items():
            value = getattr(spec, name)
            if name not in self.settings and value != neutral:
                why = f": {self.why_not[name]}" if name in self.why_not else ""
                hint = " (data_skew=samples)" if name == "join" else ""
                raise EngineUnsupported(f"engine={engine} has no {name}={as_written(value)}{hint}{why}")


@dataclass(frozen=True)
class Traits:
    """Differences of a launch with these settings from plain data parallelism."""

    servers: int = 0
    """Processes in addition to the ranks that run the adapter's ``serve`` (parameter servers)."""
    ranks_per_replica: int = 1
    """Ranks that compute one replica together and so train on the same samples (model parallelism)."""
    microbatches: int = 1
    """Parts that the engine cuts each micro-batch into; the process that parity compares with cuts it likewise."""
    partial_sums: bool = False
    """Ranks add up partial results of a layer, each rounded to the precision in which it is computed."""
    outside_parity: str = ""
    """Why the weights cannot be a single process's; such a cell is run, flagged and never ranked."""
    own_random: str = ""
    """Why ranks draw other random numbers than a single process; a model that draws some is then not judged."""
    synchronous: bool = True
    """False: ranks do not wait for each other, so a step of all ranks does not exist."""
    uncounted: str = ""
    """What communicates past torch.distributed's operators, so that the ledger of collectives lacks it."""
    unrepeatable: str = ""
    """Why two runs cannot give the same bits, whatever the algorithms; ``deterministic=true`` is then unsupported."""
    unsilenced: str = ""
    """Why a step cannot run without communication; empty if it can."""


def reject_unsupported(what: str, cases: Iterable[UnsupportedCase]) -> None:
    """Raises EngineUnsupported for the first case that applies; ``what`` is the engine, such as ``engine=torch``."""
    for applies, lacks, why in cases:
        if applies:
            raise EngineUnsupported(f"{what} {lacks}: {why}")


def reject_missing(engine: str, *, installed: bool) -> None:
    """Raises EngineUnavailable for an engine whose library is an extra of its name."""
    if not installed:
        raise EngineUnavailable(
            f"engine={engine} needs a library that is not installed: pip install 'ddp-zero-bench[{engine}]'"
        )


def reject_debug_detail(what: str, why: str) -> None:
    """Raises EngineUnsupported where torch checks each collective, if ``what`` does not survive that."""
    value = os.environ.get("TORCH_DISTRIBUTED_DEBUG", "")
    if value.strip().upper() == "DETAIL":
        raise EngineUnsupported(
            f"{what} does not run with TORCH_DISTRIBUTED_DEBUG={value}: {why}; valid: unset or INFO"
        )


def option(spec: EngineSpec, name: str, *valid: Any) -> Any:
    """An engine's own option. Raises OptionInvalid if it is none of ``valid``."""
    value = spec.options.get(name)
    if not any(type(value) is type(choice) and value == choice for choice in valid):
        raise OptionInvalid(
            f"engine.{name}={as_written(value)} is not valid; valid: {', '.join(map(as_written, valid))}"
        )
    return value


def count_option(spec: EngineSpec, name: str, least: int = 1) -> int:
    """An engine's own option that is a whole number. Raises OptionInvalid if it is not, or below ``least``."""
    value = spec.options.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionInvalid(
            f"engine.{name}={as_written(value)} is not valid; valid: a whole number of at least {least}"
        )
    return value


def shard_sizes(world_size: int) -> str:
    """The valid values of ``shard_size``, in words."""
    return ", ".join(str(size) for size in range(2, world_size + 1) if world_size % size == 0) or "null"


def reject_degree(engine: str, spec: EngineSpec) -> None:
    """Raises EngineUnsupported unless the ranks divide into replicas of ``engine.degree`` ranks."""
    degree = count_option(spec, "degree", least=2)
    if spec.world_size % degree:
        raise EngineUnsupported(
            f"engine={engine} with engine.degree={degree} has no gpus={spec.world_size}: valid: a multiple of {degree}"
        )

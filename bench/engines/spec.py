"""The settings of an engine, and its declaration of support. Needs no torch: plans are made with it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

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
                has = self.why_not.get(name) or f"it has {', '.join(map(str, valid))}"
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


Uses = Literal["used_outside", "used_early", "used_bare"]
USES: dict[Uses, str] = {
    "used_outside": "outside of the forward of the sharding unit",
    "used_early": "before the forward of the sharding unit",
    "used_bare": "outside of the forward of any module",
}
"""Fields of ``Seen`` about parameters that a loss uses, in words."""


def counted(names: list[str], what: str = "parameter") -> str:
    """Such as ``head.weight and 2 more parameters``."""
    more = len(names) - 1
    return names[0] + (f" and {more} more {what}{'s' if more > 1 else ''}" if more else "")


@dataclass(frozen=True)
class Seen:
    """Properties of a training step that not every engine supports, observed by the single-process reference."""

    skipped: list[str] = field(default_factory=list)
    """Trained parameters that got no gradient in some micro-batches."""
    uneven: list[str] = field(default_factory=list)
    """Those that got one on some ranks and not on others."""
    differentiates: bool = False
    """Whether the loss is computed from gradients (``create_graph=True``)."""
    used_outside: list[str] = field(default_factory=list)
    """Parameters that the loss uses outside of their unit's forward; those of the root, outside of the module's."""
    used_early: list[str] = field(default_factory=list)
    """Those of them that it uses before that forward."""
    used_bare: list[str] = field(default_factory=list)
    """Parameters that the loss uses outside of any module's forward."""
    in_threads: list[str] = field(default_factory=list)
    """Modules whose forward the loss runs in Python threads other than its own."""
    first_use: str = ""
    """What the loss uses of the module before it calls it, as ``.encode``."""

    def reject_first_use(self, engine: str) -> None:
        """Raises EngineUnsupported for a loss that does not begin with a call of the module."""
        if self.first_use:
            raise EngineUnsupported(
                f"engine={engine}: the loss uses module{self.first_use} without calling the module; "
                "valid: a loss of module(inputs), engine=native, torch, deepspeed"
            )

    def reject_uses(self, engine: str, uses: Uses, why: str, valid: str) -> None:
        """Raises EngineUnsupported if the field ``uses`` has any: parameters that the loss uses without a forward."""
        names: list[str] = getattr(self, uses)
        if names:
            where = USES[uses]
            raise EngineUnsupported(f"engine={engine}: the loss uses {counted(names)} {where}, {why}; valid: {valid}")

    def reject_threads(self, engine: str, spec: EngineSpec, valid: str) -> None:
        """Raises EngineUnsupported for forwards in other threads, where each forward issues collectives."""
        if self.in_threads:
            raise EngineUnsupported(
                f"engine={engine} at stage={spec.stage}: the forward of {counted(self.in_threads, 'module')} runs in a "
                "Python thread other than the loss's, so ranks would issue collectives in different orders; "
                f"valid: {valid}, a loss that calls all modules in its own thread"
            )

    def reject_skips(self, engine: str, spec: EngineSpec, names: list[str], why: str, valid: str) -> None:
        """Raises EngineUnsupported if ``names`` has any: the message has their number and the first one."""
        if not names:
            return
        verb = "get no gradient" if len(names) > 1 else "gets no gradient"
        where = "on some ranks only" if names is self.uneven else "in some micro-batches"
        raise EngineUnsupported(
            f"engine={engine} at stage={spec.stage}: {counted(names)} {verb} {where}, {why}; valid: {valid}"
        )

    def reject_differentiation(self, engine: str, spec: EngineSpec, why: str, valid: str) -> None:
        """Raises EngineUnsupported for a loss that is computed from gradients."""
        if self.differentiates:
            raise EngineUnsupported(
                f"engine={engine} at stage={spec.stage}: the loss is computed from gradients (create_graph=True), "
                f"{why}; valid: {valid}"
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

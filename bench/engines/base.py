"""The Engine protocol: one way to train a module data-parallel, in seven methods.

An engine owns the wrapping or sharding of the module, the optimizer, and every collective of a
training step. It does not own data, clocks, processes or process groups: those are the harness's.

Each engine is a package (conf/engine/NAME.yaml names it) with two parts:

- the package itself, importable without torch, declares what the engine honors: ``CAPABILITIES``,
  ``check_settings(spec)`` for combinations, ``PRELOAD``, the modules that its ranks would otherwise import one by one,
  and, where it differs from plain data parallelism, ``traits(spec)``;
- ``adapter.py`` does the work: ``create()`` returns the Engine. It is imported only by ranks. An engine with servers
  also has ``serve(spec, context: ServerContext)``, which returns what a server counted
  (``results.launches.ServerCounts``).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store

from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec
from bench.placement import Placement
from results.resolved import EngineDescription

Batch = Any
"""Inputs and targets: tensors, in tuples, lists or dicts as the workload likes (``batches``). Only its loss function
knows which; dimension 0 of each tensor indexes the samples."""

LossFunction = Callable[[nn.Module, Batch], Tensor]
"""Calls the module as training would and returns the mean loss of the batch, a scalar."""


@dataclass(frozen=True)
class RankContext:
    """A rank: its number, device and placement. The default process group is initialised before ``setup``."""

    rank: int
    world_size: int
    device: torch.device
    store: Store
    """The store of this launch's rendezvous, for engines that make groups of their own."""
    first_use: str = ""
    """What the loss uses of the module before it calls it, as ``.encode`` (``whole_loss.first_use``)."""
    placement: Placement = Placement()
    """On which host it runs, and as which of that host's ranks."""


@dataclass(frozen=True)
class ServerContext:
    """A server: a process that is no rank of the default group (``Traits.servers``)."""

    index: int
    servers: int
    store: Store


class Engine(Protocol):
    """One engine in one rank. Methods are called in the order in which they stand here."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        """Wraps or shards ``module`` (fp32, on ``context.device``) and builds the optimizer.

        ``units`` are its sharding units in the order of forward. Raises EngineUnsupported for what only the
        built module can show.
        """
        ...

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        """One micro-batch; returns its loss (detached, unscaled). ``sync=False`` must not reduce gradients, unless the
        engine keeps no place for whole gradients (native at stages 2 and 3 adds each micro-batch up in its shard).

        The engine divides the gradient by ``spec.accumulate``; the last micro-batch of a step has ``sync=True``.
        """
        ...

    def optimizer_step(self) -> None:
        """Finishes the reduction, clips by the global norm, updates the weights and frees the gradients."""
        ...

    def state(self) -> dict[str, list[Tensor]]:
        """The tensors that this rank keeps in device memory, by kind: params, master, grads, optimizer, buffers."""
        ...

    def full_state_dict(self) -> dict[str, Tensor]:
        """Whole parameters under the names of the original module, on every rank. Untimed; collective."""
        ...

    def describe(self) -> EngineDescription:
        """The settings as they took effect, and entries of the engine's own, in JSON types."""
        ...

    def teardown(self) -> None:
        """Releases what a process exit would not, and disconnects from servers."""
        ...


class JoinableEngine(Engine, Protocol):
    """An engine with the setting ``join``."""

    def join(self) -> contextlib.AbstractContextManager[object]:
        """A context that ranks may leave after unequal numbers of steps; it ends when the last one leaves."""
        ...


class OffloadingEngine(Engine, Protocol):
    """An engine with the setting ``offload``."""

    def host_state(self) -> dict[str, list[Tensor]]:
        """The tensors that this rank keeps in host memory, by the kinds of ``state``; none of them is in ``state``."""
        ...


class CopyingEngine(Engine, Protocol):
    """An engine with the setting ``secondary_shard_size``, which keeps a second copy of weights to gather from."""

    def copies(self) -> list[Tensor]:
        """Those tensors of ``state`` that hold the copy; they follow an update only in the next step."""
        ...


class ScalingEngine(Engine, Protocol):
    """An engine that scales the loss (``precision=amp_fp16``) and so skips updates."""

    def loss_scaling(self) -> LossScaling | None:
        """The state of loss scaling between steps; None where the loss is not scaled. Untimed."""
        ...

"""The settings that took effect: every entry of ``Record.resolved``, and of the engine's own description within it."""

from __future__ import annotations

from typing import Annotated, TypedDict

from results.entries import Entry


class EngineDescription(TypedDict, total=False):
    """The settings of an engine as they took effect. Other entries are the engine's own.

    Analysis reads these; formulas of one engine may read more of its own.
    """

    library: Annotated[str, Entry("library and version, such as torch 2.11.0")]
    wrapper: Annotated[str | None, Entry("class or function that wraps the module")]
    overlap: Annotated[bool | None, Entry("whether communication overlaps the backward pass")]
    bucket_mb: Annotated[float | None, Entry("largest bucket in MiB", min=0)]
    buckets: Annotated[int | None, Entry("buckets of gradients", min=0)]
    in_flight: Annotated[int | None, Entry("reductions that run at the same time at most", min=0)]
    last_bucket_bytes: Annotated[int | None, Entry("bucket that is reduced last", "B", min=0)]
    offload: Annotated[str, Entry("what is in host memory: optimizer or params; missing without offload")]
    host_is_device: Annotated[
        bool, Entry("whether host and device are the same memory, so that offload saves none; missing without offload")
    ]
    reduce_dtype: Annotated[str | None, Entry("data type of reduced gradients, as torch names it")]
    muon: Annotated[str, Entry("which weights optimizer=muon updates by what, and where whole matrices come from")]


class ResolvedNetwork(TypedDict, total=False):
    """The emulated network, in numbers."""

    bits_per_s: Annotated[float | None, Entry("rate of each host, per direction; null: not limited", min=0)]
    delay_s: Annotated[float, Entry("one-way latency between hosts", "s", min=0)]
    hosts: Annotated[int, Entry("emulated hosts, those of servers included", min=1)]
    host_of_rank: Annotated[list[int], Entry("host of each rank")]


class HostRanks(TypedDict, total=False):
    """One host of a cluster, and its ranks."""

    name: Annotated[str, Entry("name of the host")]
    interface: Annotated[str, Entry("network interface of its ranks")]
    cores: Annotated[float, Entry("CPUs that may be used", "core", min=0)]
    ranks: Annotated[int, Entry("ranks on it", min=0)]


class Resolved(TypedDict, total=False):
    """The settings that took effect: after defaults, with values that follow from them."""

    world_size: Annotated[int, Entry("ranks", min=1, max=2**20)]
    device: Annotated[str, Entry("cpu or cuda")]
    backend: Annotated[str, Entry("backend of collectives")]
    threads: Annotated[int, Entry("CPU threads per rank", min=0)]
    cores: Annotated[float, Entry("CPUs that may be used", "core", min=0)]
    rank_batch: Annotated[int, Entry("samples per step and rank", min=0)]
    global_batch: Annotated[int, Entry("samples per step over all ranks", min=0)]
    accumulate: Annotated[int, Entry("micro-batches per step and rank", min=0)]
    ranks_per_replica: Annotated[int, Entry("ranks that train one copy of the model together", min=0)]
    servers: Annotated[int, Entry("parameter servers", min=0)]
    simulated: Annotated[bool, Entry("whether rank 0 ran alone (backend=fake)")]
    synchronous: Annotated[bool, Entry("whether ranks wait for each other in each step")]
    uncounted: Annotated[str, Entry("why collectives are not all counted; empty if they are")]
    network: Annotated[ResolvedNetwork | None, Entry("the emulated network; null without one")]
    outside_parity: Annotated[str, Entry("why training is not numerically equivalent by design; empty if it is")]
    engine: Annotated[EngineDescription, Entry("the engine's description of its settings; empty until it ran")]
    hosts: Annotated[list[HostRanks], Entry("hosts of a cluster, with their ranks; missing on one machine")]
    start_method: Annotated[str, Entry("how ranks were started")]
    global_changes: Annotated[list[str], Entry("global state that the workload's code changed")]

"""The environment of a sweep: each entry of ``Record.environment``, in the order of descriptions and comparisons."""

from __future__ import annotations

from typing import Annotated, Any, TypedDict

from results.entries import Entry

GpuFacts = TypedDict(
    "GpuFacts",
    {
        "name": Annotated[str, Entry("product name")],
        "driver_version": Annotated[str, Entry("version of the driver")],
        "memory.total": Annotated[str, Entry("memory, such as 81920 MiB, or unknown")],
        "clocks.max.sm": Annotated[str, Entry("highest clock of the multiprocessors, such as 1410 MHz, or unknown")],
    },
    total=False,
)
GpuFacts.__doc__ = "One GPU."


class Git(TypedDict, total=False):
    """The checkout that ran."""

    commit: Annotated[str, Entry("commit")]
    dirty: Annotated[bool, Entry("whether files differ from the commit")]
    files: Annotated[str, Entry("first digits of the SHA-256 over the files that measure")]


class Environment(TypedDict, total=False):
    """Hardware, versions and environment variables of the first host."""

    cpu_model: Annotated[str, Entry("processor", role="hardware", by_host=True, label="{}")]
    cores: Annotated[float, Entry("CPUs that may be used", "core", min=0, role="hardware", label="{}")]
    memory_bytes: Annotated[float, Entry("main memory", "B", min=0, by_host=True, label="{}")]
    gpus: Annotated[list[GpuFacts], Entry("GPUs", "GPU", role="hardware", by_host=True, label="{}")]
    gpu_links: Annotated[list[list[str]], Entry("links between GPUs, a row per GPU, as nvidia-smi topo -m")]
    torch: Annotated[str, Entry("version of torch", role="platform", label="torch {}")]
    python: Annotated[str, Entry("version of Python", role="library", label="python {}")]
    cpu_capability: Annotated[str | None, Entry("vector instructions that torch uses")]
    cuda: Annotated[str | None, Entry("version of CUDA that torch was built with", role="library")]
    cudnn: Annotated[str | None, Entry("version of cuDNN", role="library")]
    nccl: Annotated[str | None, Entry("version of NCCL", role="library")]
    packages: Annotated[dict[str, str], Entry("versions of packages", role="library")]
    variables: Annotated[dict[str, str], Entry("environment variables that change numbers", role="library")]
    physical_cores: Annotated[int | None, Entry("cores without hyper-threads", "core", min=0, by_host=True)]
    logical_cores: Annotated[int | None, Entry("cores with hyper-threads", "core", min=0)]
    numa_nodes: Annotated[int | None, Entry("NUMA nodes", min=0)]
    cgroup: Annotated[dict[str, str], Entry("limits of the control groups, in the names of version 2")]
    glibc: Annotated[str, Entry("C library")]
    kernel: Annotated[str, Entry("operating system, kernel and architecture", by_host=True)]
    hostname: Annotated[str, Entry("name of the host")]
    host_count: Annotated[int, Entry("hosts; missing on one machine", min=1, role="platform")]
    hosts: Annotated[list[dict[str, Any]], Entry("name, interface, cores and own entries of each host of a cluster")]
    not_measured: Annotated[dict[str, str], Entry("what has no instrument here, and why", by_host=True)]
    load_average: Annotated[
        list[float], Entry("mean runnable processes of 1, 5 and 15 minutes", role="moment", by_host=True)
    ]
    time: Annotated[str, Entry("start of the sweep (UTC, ISO 8601)", role="moment")]
    git: Annotated[Git, Entry("checkout; empty outside of one", role="source")]

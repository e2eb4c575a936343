"""Every setting, declared once: type, default, bounds, help, and how reports name it.

``Config`` is what a person sets on the command line and what a record keeps as ``config``. Its part ``Training``
(``training_settings``) is what every engine honors or reports as unsupported. Help, checks, identity, comparisons and
labels read it here. Settings of hosts and their network are in ``host_settings``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from results.declare import Role, each_setting, info, setting
from results.host_settings import Cluster, Network
from results.quantities import size_bytes
from results.training_settings import Training

MAX_SEED = 2**32 - 1
MAX_BATCH = 65536
"""Largest batch per rank that search=max_batch tries, unless ``search_most`` sets another."""


@dataclass
class Measure:
    """Measurements in addition to time (conf/measure/)."""

    parity_steps: int = setting(
        3, "untimed steps that are compared with a single process on the same global batches. 0: no comparison", min=0
    )
    memory: bool = setting(True, "measure peak memory and model state at the allocator, in an untimed launch")
    collectives: bool = setting(
        True,
        "list the collectives of one step (kind, dtype, elements, ranks), in the same untimed launch",
        role="instrument",
    )
    ceiling: bool = setting(
        True,
        "measure the peak FLOP/s of matrix products on all ranks at once, the reference for MFU",
        role="instrument",
    )
    profile: bool = setting(
        False,
        "split step time into computation, exposed communication, waiting and the rest: one profiled launch, and "
        "one launch without communication per timed launch",
    )
    trace: bool = setting(
        False,
        "write one Perfetto (Chrome) trace of the profiled steps per rank, in a profiled launch, and the memory of one "
        "step over time, in the launch that measures memory; on CUDA also the allocator's snapshot",
        role="instrument",
    )
    batch_pool: int = setting(
        8,
        "distinct global batches that are prepared before timing starts; measured steps cycle through them (data=pool)",
        min=1,
    )
    timing_breakdown: bool = setting(False, "print at the end how long each part of the sweep took", role="sweep")


@dataclass
class Tracking:
    """The place where results are logged (conf/tracking/)."""

    kind: str = setting("mlflow", "tracking backend", "mlflow", "none", role="sweep")
    uri: str | None = setting(
        "sqlite:///mlflow.db",
        "MLflow store or server. If it is unavailable, the sweep continues with a warning, and "
        "python -m bench.tracking import PATH logs the records later",
        role="sweep",
    )
    experiment: str = setting("ddp-zero-bench", "MLflow experiment", role="sweep")
    artifacts: str | None = setting(
        "mlartifacts", "artifact folder of a local store; a server chooses its own", role="sweep"
    )


@dataclass
class Straggler:
    """One rank that is slowed on purpose."""

    rank: int | None = setting(None, "rank that is slowed. null: none", min=0)
    factor: float = setting(
        2.0, "factor by which its forward and backward take longer; only timed steps are slowed", min=1
    )


@dataclass
class Loader:
    """The DataLoader of each rank (data=loader)."""

    workers: int = setting(
        2,
        "processes per rank that read batches. 0: the rank reads them itself, before each micro-batch",
        min=0,
        max=256,
    )
    prefetch: int | None = setting(
        None,
        "micro-batches that each worker reads in advance. null: 2 (torch's default) if there are workers",
        min=1,
    )
    pin_memory: bool | None = setting(
        None, "copy batches through page-locked memory, which only a GPU uses. null: on a GPU"
    )


@dataclass
class Config(Training):
    """One configuration of a sweep, as it was asked for."""

    engine: dict[str, Any] = setting(
        {},
        "engine under test, from conf/engine/, with its own options (engine.*)",
        label="{}",
        label_unset="default",
    )
    workload: dict[str, Any] = setting(
        {},
        "model, data and loss, from conf/workload/, with its own options (workload.*)",
        role="task",
        label="{}",
        label_unset="default",
    )
    gpus: int = setting(
        1,
        "world size: one rank per GPU, or that many CPU processes where there is no GPU",
        min=1,
        max=2**20,
        heading="ranks",
        label="{} ranks",
    )
    device: str = setting(
        "auto",
        "auto: CUDA where a GPU is visible, else the CPU",
        *("auto", "cpu", "cuda"),
        role="task",
        label="{}",
        label_unset="default",
    )
    backend: str = setting(
        "auto",
        "collective backend. auto: nccl where each rank has a GPU of its own, else gloo. mpi: only if torch has it. "
        "fake: run rank 0 of gpus=N alone, for world sizes larger than the machine; its memory and its collective "
        "calls are real, its time is computation only, and the configuration is marked simulated",
        *("auto", "gloo", "nccl", "mpi", "fake"),
        label="{}",
        label_unset="default",
    )
    scaling: str = setting(
        "weak",
        "weak: batch_size samples per rank, so work grows with gpus. strong: batch_size samples over all ranks",
        *("weak", "strong"),
        role="task",
        label="{} scaling",
    )
    batch_size: int = setting(
        64,
        "samples per step, per rank (weak) or over all ranks (strong); each workload sets its own",
        min=1,
        role="task",
    )
    batch_tokens: int | None = setting(
        None,
        "tokens per step over all ranks, in place of batch_size: equal work while gpus, workload.sequence_length and "
        "checkpointing vary. null: batch_size",
        min=1,
        role="task",
    )
    steps: int = setting(45, "measured steps per launch", min=1, role="task")
    warmup: int = setting(2, "warm-up steps per launch, excluded from statistics", min=0, role="task")
    target_loss: float | None = setting(
        None,
        "train each launch until the mean loss of 10 steps over all ranks is at most this, for at most steps steps; "
        "launches differ in their seed, and the batches of measure.batch_pool are the data set. null: all steps",
        role="task",
    )
    repeats: int = setting(
        3,
        "launches per configuration, one per round; a launch is the independent sample of every interval",
        min=1,
        role="sweep",
    )
    data_skew: str = setting(
        "none",
        "unequal data per rank. labels: samples are sorted by class, so each rank sees few classes of a global batch. "
        "samples: the last rank has half as many batches as the others (needs an engine with Join)",
        *("none", "labels", "samples"),
    )
    data: str = setting(
        "pool",
        "pool: batches are ready before timing starts, so that no step waits for data. loader: a DataLoader per rank "
        "reads the batches of data_dir as steps need them, and each step's wait for its batch is measured; without "
        "data_dir, small files of images or tokens are made from the seed",
        *("pool", "loader"),
        role="task",
    )
    loader: Loader = field(default_factory=Loader)
    straggler: Straggler = field(default_factory=Straggler)
    network: Network = field(default_factory=Network)
    cluster: Cluster = field(default_factory=Cluster)
    search: str = setting(
        "none",
        "max_batch: find the largest batch per rank that fits memory_limit, starting at batch_size, with launches "
        "that measure memory only (neither parity nor time; steps, warmup and repeats have no effect)",
        *("none", "max_batch"),
    )
    memory_limit: str | None = setting(
        None,
        "memory per rank that search=max_batch may use: peak memory of a step on a CPU, the allocator's limit on a "
        "GPU. null: the whole GPU",
        form=(size_bytes, "a size such as 2GiB or 500MB"),
    )
    search_most: int | None = setting(None, f"largest batch that search=max_batch tries. null: {MAX_BATCH}", min=1)
    seed: int = setting(0, "seed of weights, data order and the shuffling of rounds", min=0, max=MAX_SEED, role="task")
    deterministic: bool = setting(
        False,
        "bitwise-reproducible runs (torch.use_deterministic_algorithms); unsupported if the engine cannot guarantee it",
    )
    threads: int | None = setting(
        None,
        "CPU threads per rank. null: cores divided by the largest world size of the sweep, less the most "
        "loader.workers, so threads per rank stay constant across world sizes",
        min=1,
        max=1024,
    )
    timeout_s: float = setting(
        300.0, "seconds after which a launch is stopped as a timeout", above=0, max=1e6, role="sweep"
    )
    budget_s: float | None = setting(
        None,
        "seconds that the sweep may take. A round that would end later does not start, so configurations may have "
        "fewer launches than repeats. null: no limit",
        above=0,
        max=1e7,
        role="sweep",
    )
    dry_run: bool = setting(
        False,
        "print the configurations, their launches, estimated time and predicted memory, and measure nothing",
        role="sweep",
    )
    data_dir: str | None = setting(
        None,
        "folder with real data: images in train/CLASS/ or in tar shards (webdataset), CIFAR-10 as torchvision stores "
        "it, or 16-bit token ids in train.bin, as nanoGPT prepares them. null: fixed synthetic data",
        role="task",
    )
    resume: bool = setting(
        False,
        "run only what is missing in the sweep's folder: hydra.sweep.dir, else the newest under results/runs",
        role="sweep",
    )
    reproduce: str | None = setting(
        None,
        "run the configuration of this record (file, or id of its MLflow run) again with its resolved settings, and "
        "compare; only settings that do not change the configuration can be added. null: none",
        role="sweep",
    )
    measure: Measure = field(default_factory=Measure)
    tracking: Tracking = field(default_factory=Tracking)


def with_role(*roles: Role) -> tuple[str, ...]:
    """Dotted paths of the settings with one of these roles."""
    return tuple(path for path, spec, _ in each_setting(Config()) if info(spec).role in roles)

"""Every knob: its type, unit, default, meaning and bounds. The schema behind Hydra and ``--help``.

``Config`` is what a person may set; ``bench.checks`` holds values against it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench import network
from bench.engines.spec import COMPRESSIONS, OPTIMIZERS, PRECISIONS
from bench.search import MOST
from bench.sizes import size_bytes

CONF = Path(__file__).resolve().parent.parent / "conf"


class ConfigError(ValueError):
    """A setting is invalid; the message is one line that names it and says what is valid."""


def knob(
    default: Any,
    text: str,
    *choices: str,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    form: tuple[Callable[[str], float], str] | None = None,
) -> Any:
    """A field with its documentation and bounds: one of ``choices``, at least, above, at most.

    ``form`` is for text that stands for a number: what reads it, raising ValueError, and what is valid, in words.
    """
    metadata = {"help": text, "choices": choices, "least": least, "above": above, "most": most, "form": form}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class Measure:
    """What is measured beside time (conf/measure/)."""

    parity_steps: int = knob(
        3, "untimed steps compared with a single process on the same global batches; 0 skips parity", least=0
    )
    memory: bool = knob(True, "count peak bytes and model state at the allocator, in a launch that is not timed")
    collectives: bool = knob(
        True, "list the collectives of a step with their sizes, in the same launch: kind, dtype, elements, ranks"
    )
    ceiling: bool = knob(
        True, "time matrix products on all ranks at once, once a setting, as the peak that MFU is measured against"
    )
    profile: bool = knob(
        False,
        "attribute the time of a step to computation, exposed communication, waiting and the rest: a profiled launch, "
        "and beside each timed launch one whose collectives send nothing",
    )
    batch_pool: int = knob(
        8, "distinct global batches that are made before the clock starts; measured steps cycle through them", least=1
    )
    timing_breakdown: bool = knob(False, "print at the end where the sweep's time went")


@dataclass
class Tracking:
    """Where results are logged (conf/tracking/)."""

    kind: str = knob("mlflow", "tracking backend", "mlflow", "none")
    uri: str | None = knob(
        "sqlite:///mlflow.db",
        "MLflow store or server; one that is down costs a warning, and the records can be "
        "logged later (python -m bench.tracking import PATH)",
    )
    experiment: str = knob("ddp-zero-bench", "MLflow experiment")
    artifacts: str | None = knob("mlartifacts", "artifact folder of an embedded store; a server chooses its own")


@dataclass
class Straggler:
    """One slow rank, on purpose."""

    rank: int | None = knob(None, "the rank that is slowed; null: none", least=0)
    factor: float = knob(
        2.0, "its forward and backward take this many times as long; only timed steps are slowed", least=1
    )


@dataclass
class Network:
    """The network between ranks (conf/network/)."""

    kind: str = knob(
        "none",
        "lab: each rank is a host of its own, a network namespace behind a link of known rate and delay (Linux, root; "
        "gloo only). none: this machine as it is",
        "none",
        "lab",
    )
    rate: str | None = knob(
        None,
        "what each host of the lab can send, and can receive; null: unshaped",
        form=(network.bits_per_s, "a rate from 8kbit to 100gbit, such as 100mbit"),
    )
    delay: str | None = knob(
        None,
        "from any host of the lab to any other, one way; null: none is added",
        form=(network.delay_s, "a time from 10us to 10s, such as 1ms"),
    )
    hosts: int | None = knob(
        None,
        "hosts that the ranks share, in order; ranks on one host are not slowed by its link. null: one per rank",
        least=1,
    )

    def link(self, ranks: int) -> network.Link | None:
        """The lab's links for so many ranks; None without a lab."""
        if self.kind == "none":
            return None
        rate = None if self.rate is None else network.bits_per_s(self.rate)
        return network.Link(rate, network.delay_s(self.delay) if self.delay else 0.0, self.hosts or ranks)


@dataclass
class Config:
    """One cell of a sweep, as asked for."""

    engine: dict[str, Any] = knob({}, "the engine under test, from conf/engine/, with its own options (engine.*)")
    workload: dict[str, Any] = knob({}, "model, data and loss, from conf/workload/, with its own options (workload.*)")
    stage: int = knob(
        0,
        "what is sharded: 0 nothing (DDP), 1 optimizer state, 2 and gradients, 3 and parameters (ZeRO)",
        "0",
        "1",
        "2",
        "3",
    )
    gpus: int = knob(
        1, "world size: one rank per GPU, or that many CPU processes where there is no GPU", least=1, most=2**20
    )
    device: str = knob("auto", "auto takes CUDA where a GPU is visible", "auto", "cpu", "cuda")
    backend: str = knob(
        "auto",
        "collectives; auto takes nccl where each rank has a GPU of its own, else gloo; mpi only where torch was built "
        "with it. fake: rank 0 of gpus=N runs alone, for worlds larger than the machine: its memory and what it calls "
        "are real, its time is compute only, and the cell is marked simulated",
        "auto",
        "gloo",
        "nccl",
        "mpi",
        "fake",
    )
    precision: str = knob(
        "fp32",
        "amp_*: autocast over fp32 weights (amp_fp16 with loss scaling); bf16: weights, gradients and optimizer state "
        "in bf16; bf16_master: bf16 with fp32 master weights and optimizer state",
        *PRECISIONS,
    )
    bucket_mb: float | None = knob(
        None,
        "cap of a gradient bucket in MiB: stages 0-2 reduce one bucket at a time; stage 3 gathers and reduces units "
        "of this size where the engine can regroup them",
        above=0,
    )
    overlap: bool | None = knob(
        None, "let communication start before backward has ended (stage 3: also gather the next unit ahead)"
    )
    scaling: str = knob(
        "weak",
        "weak: batch_size samples per rank, so work grows with gpus; strong: batch_size samples in all, shared out",
        "weak",
        "strong",
    )
    batch_size: int = knob(
        64, "samples per step, per rank (weak) or over all ranks (strong); each workload sets its own", least=1
    )
    accumulate: int = knob(
        1,
        "micro-batches that each rank's share of a step is cut into; only the last one communicates gradients",
        least=1,
    )
    compression: str = knob(
        "none",
        "what gradients are compressed to on the wire; powersgd is a low-rank approximation and outside parity",
        *COMPRESSIONS,
    )
    shard_size: int | None = knob(
        None,
        "ranks that share one copy of the model state; groups of them are replicas (hybrid sharding). null: all ranks",
        least=1,
    )
    local_steps: int = knob(
        1, "steps that each rank takes on its own between averages of the weights (post-local SGD); 1: none", least=1
    )
    compile: bool = knob(False, "put the model through torch.compile; the first warm-up step does it")
    optimizer: str = knob("adam", "optimizer; sgd has momentum 0.9", *OPTIMIZERS)
    lr: float = knob(1e-3, "learning rate", above=0)
    clip_norm: float | None = knob(None, "bound of the global gradient norm over all ranks and shards", above=0)
    steps: int = knob(45, "measured steps per launch", least=1)
    warmup: int = knob(2, "steps before them that are recorded apart", least=0)
    repeats: int = knob(
        3, "fresh launches per cell, one per round; a launch is the independent sample of every interval", least=1
    )
    data_skew: str = knob(
        "none",
        "how samples are dealt to ranks. labels: sorted by class, so that each rank sees few classes of a global "
        "batch. samples: the last rank has half as many batches as the others (needs an engine with Join)",
        "none",
        "labels",
        "samples",
    )
    straggler: Straggler = field(default_factory=Straggler)
    network: Network = field(default_factory=Network)
    search: str = knob(
        "none",
        "max_batch: find the largest batch per rank that stays within memory_limit, beginning at batch_size, by "
        "launches that measure memory only (neither parity nor time; steps, warmup and repeats mean nothing)",
        "none",
        "max_batch",
    )
    memory_limit: str | None = knob(
        None,
        "memory per rank that search=max_batch may use. On a CPU it is held against the allocator's peak in a step, "
        "on a GPU it bounds the allocator, and null is the whole GPU",
        form=(size_bytes, "a size such as 2GiB or 500MB"),
    )
    search_most: int | None = knob(None, f"largest batch per rank that search=max_batch tries; null: {MOST}", least=1)
    seed: int = knob(0, "seed of weights, data order and the shuffling of rounds", least=0, most=2**32 - 1)
    deterministic: bool = knob(
        False,
        "deterministic algorithms only (torch.use_deterministic_algorithms): two runs give the same bits, or the "
        "setting is refused",
    )
    threads: int | None = knob(
        None,
        "CPU threads per rank; null: the cores divided by the largest world size of the sweep, so that a rank is the "
        "same machine at every world size",
        least=1,
    )
    timeout_s: float = knob(300.0, "seconds after which a launch is ended as a timeout", above=0, most=1e6)
    data_dir: str | None = knob(None, "folder with real data sets (torchvision's layout); null: fixed synthetic data")
    resume: bool = knob(
        False,
        "run only what the sweep's folder lacks: hydra.sweep.dir, else the last one written under results/runs",
    )
    reproduce: str | None = knob(
        None,
        "run the cell of this record again (a record's file, or the id of its MLflow run) with the settings that it "
        "resolved to, and say what agrees; beside it only knobs that do not change the cell are valid",
    )
    measure: Measure = field(default_factory=Measure)
    tracking: Tracking = field(default_factory=Tracking)


def knobs(config: Any, prefix: str = "") -> list[tuple[str, dataclasses.Field[Any], Any]]:
    """Every knob below a config dataclass: dotted path, field and value."""
    found = []
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            found += knobs(value, f"{prefix}{spec.name}.")
        else:
            found.append((prefix + spec.name, spec, value))
    return found


def options(group: str) -> list[str]:
    """The names in a config group, one file each."""
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


@functools.cache
def group_files(group: str, conf: Path = CONF) -> dict[str, dict[str, Any]]:
    """What each file in a config group says of the group, by the file's name; not to be changed."""
    found = {}
    for path in sorted((conf / group).glob("*.yaml")):
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        found[path.stem] = document.get(group, document)
    return found


def default_option(group: str) -> str:
    """What a config group is where nobody names it."""
    defaults = yaml.safe_load((CONF / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    return next(str(entry[group]) for entry in defaults if isinstance(entry, dict) and group in entry)

"""Records made up for the tests of analysis: single cells with known answers, and a sweep that looks real."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from analysis.theory import predict_state
from results.attribution import Attribution, StepParts
from results.environment import GpuFacts
from results.launches import Launch, RankSamples
from results.memory import RankMemory
from results.model import Model, Parameter
from results.parity import Parity
from results.record import RankEnd, Record, Status

if TYPE_CHECKING:
    from analysis.advice.answer import Answers
    from analysis.report.write import ReportPaths

CNN = [
    ("features.0.weight", [48, 1, 3, 3], 0),
    ("features.0.bias", [48], 0),
    ("features.1.weight", [48, 48, 3, 3], 1),
    ("features.1.bias", [48], 1),
    ("features.2.weight", [96, 48, 3, 3], 2),
    ("features.2.bias", [96], 2),
    ("head.weight", [10, 384], -1),
    ("head.bias", [10], -1),
]
GPU: GpuFacts = {"name": "NVIDIA A100-SXM4-80GB", "driver_version": "550.54", "memory.total": "81920 MiB"}
ENVIRONMENT = {
    "time": "2026-03-01T09:30:00+00:00",
    "python": "3.11.9",
    "packages": {"torch": "2.15.0", "hydra-core": "1.3.2", "numpy": "2.4.6"},
    "torch": "2.15.0",
    "nccl": None,
    "kernel": "Linux 6.1.0 x86_64",
    "cpu_model": "Intel(R) Xeon(R) Processor @ 2.60GHz",
    "cores": 2,
    "physical_cores": 2,
    "memory_bytes": 8 * 2**30,
    "load_average": [0.4, 0.3, 0.2],
    "gpus": [],
    "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "dirty": True},
    "variables": {"OMP_NUM_THREADS": "1"},
}

ADDED = ("offload", "quantize", "secondary_shard_size")
"""Settings that a cell's config has only where a test names them."""


def cnn_model(**changes: Any) -> Model:
    fields: dict[str, Any] = {
        "workload": "digits",
        "unit": "sample",
        "units_per_sample": 1,
        "flops_per_unit": 1.2e6,
        "parameters": [Parameter(name, shape, True, unit) for name, shape, unit in CNN],
        "buffer_bytes": 0,
        "data": "scikit-learn digits, 1797 images",
        "synthetic_data": False,
        "data_digest": "ab" * 32,
    }
    return Model(**fields | changes)


def two_layers() -> Model:
    """Two linear layers, 5 -> 7 -> 3, of which the first is a sharding unit."""
    parameters = [
        Parameter("0.weight", [7, 5], True, 0),
        Parameter("0.bias", [7], True, 0),
        Parameter("1.weight", [3, 7], True, -1),
        Parameter("1.bias", [3], True, -1),
    ]
    return cnn_model(parameters=parameters, buffer_bytes=24)


def launch(round_: int, ranks: list[list[float]], loss: float = 0.5, optimizer_s: float = 0.0) -> Launch:
    """A launch from step times by rank; ``optimizer_s`` of each step is the optimizer's."""
    samples = [
        RankSamples(
            forward_backward_s=[step - optimizer_s for step in steps],
            optimizer_s=[optimizer_s] * len(steps),
            warmup_step_s=[2 * steps[0]] * 3,
            wall_s=sum(steps),
            losses=[loss + 0.01 * (len(steps) - at) for at in range(1, len(steps) + 1)],
        )
        for steps in ranks
    ]
    return Launch(round_, "2026-03-01T09:31:00+00:00", {"total": 0.4}, samples)


def cell(stage: int = 0, gpus: int = 1, launches: list[Launch] | None = None, **changes: Any) -> Record:
    """An ok cell on two cores with one thread a rank; ``changes`` set fields of the record or, dotted, its config."""
    config: dict[str, Any] = {
        "engine": {"name": "torch", "gradient_as_bucket_view": True},
        "workload": {"name": "digits", "factory": "workloads.digits:Digits", "width": 48, "depth": 3},
        "stage": stage,
        "gpus": gpus,
        "device": "auto",
        "backend": "auto",
        "precision": "fp32",
        "bucket_mb": None,
        "overlap": None,
        "scaling": "weak",
        "batch_size": 64,
        "accumulate": 1,
        "local_steps": 1,
        "optimizer": "adam",
        "lr": 1e-3,
        "clip_norm": None,
        "steps": 20,
        "warmup": 3,
        "repeats": 5,
        "seed": 0,
        "deterministic": False,
        "threads": None,
        "timeout_s": 300.0,
        "data_dir": None,
        "resume": False,
        "measure": {"parity_steps": 4, "memory": True, "batch_pool": 8, "timing_breakdown": False},
        "tracking": {"kind": "mlflow", "uri": "sqlite:///mlflow.db", "experiment": "x", "artifacts": None},
    }
    for name in [name for name in changes if name in config or "__" in name or name in ADDED]:
        group, _, option = name.partition("__")
        if option:
            config[group] = config[group] | {option: changes.pop(name)}
        else:
            config[name] = changes.pop(name)
    fields: dict[str, Any] = {
        "cell_id": f"{config['engine']['name']}-s{stage}-n{gpus}-{config['workload']['name']}-{config['precision']}",
        "sweep_id": "2026-03-01_09-30-00",
        "config": config,
        "resolved": {
            "world_size": gpus,
            "device": "cpu",
            "backend": "gloo",
            "threads": 1,
            "cores": 2,
            "rank_batch": 64,
            "global_batch": 64 * gpus,
            "accumulate": config["accumulate"],
            "engine": {"library": "torch 2.15.0", "overlap": True},
        },
        "environment": dict(ENVIRONMENT),
        "status": "ok",
        "model": cnn_model(workload=config["workload"]["name"]),
        "launches": launches if launches is not None else [launch(0, [[0.01] * 4] * gpus)],
        "verdicts": ["oversubscribed"] if gpus > 2 else [],
    }
    return Record(**fields | changes)


def bare(status: Status, reason: str, stage: int = 0, gpus: int = 1, **changes: Any) -> Record:
    """A cell that never trained."""
    return cell(stage, gpus, [], status=status, reason=reason, model=None, verdicts=[], **changes)


def measured(record: Record, extra_bytes: int = 0, peak_bytes: int = 6_000_000) -> Record:
    """The same cell with the model state that theory predicts, plus ``extra_bytes`` of optimizer state, measured."""
    state = predict_state(record)
    assert state is not None
    state["optimizer"] += extra_bytes
    state_bytes = sum(state.values())
    record.memory = [
        RankMemory(state, state_bytes, state_bytes + peak_bytes) for _ in range(record.resolved["world_size"])
    ]
    return record


def attributed(record: Record, **parts_s: float) -> Record:
    """The same cell with two profiled steps of each rank that consist of these parts, in seconds; others are 0."""
    names = ("compute_s", "exposed_s", "straggler_s", "optimizer_s", "data_s", "host_s")
    parts = {name: parts_s.get(name, 0.0) for name in names}
    step = StepParts(step_s=sum(parts.values()), communication_s=0.0, overlapped_s=0.0, **parts)
    record.attribution = Attribution(steps=[[step] * 2 for _ in range(record.resolved["world_size"])])
    return record


def sweep(
    stages: tuple[int, ...] = (0, 1, 2, 3),
    worlds: tuple[int, ...] = (1, 2, 4, 8),
    repeats: int = 5,
    steps: int = 20,
    seed: int = 0,
    **changes: Any,
) -> list[Record]:
    """A sweep as two cores would measure it: noisy, slower from stage to stage, crowded beyond two ranks."""
    generator = random.Random(seed)
    drift = [generator.lognormvariate(0, 0.04) for _ in range(repeats)]
    records = []
    for stage in stages:
        for gpus in worlds:
            compute = 0.0125 * max(1.0, gpus / 2)
            talk = (0.0009, 0.0016, 0.0026, 0.0038)[stage] * (0.15 if gpus == 1 else gpus**0.8)
            launches = []
            for at in range(repeats):
                pace = drift[at] * generator.lognormvariate(0, 0.015)
                times = [
                    [(compute + talk) * pace * generator.lognormvariate(0, 0.03) for _ in range(steps)]
                    for _ in range(gpus)
                ]
                launches.append(launch(at, times, 0.31 + 1e-4 * generator.random(), 0.0006))
            record = cell(stage, gpus, launches, repeats=repeats, steps=steps, **changes)
            if repeats < 6:
                record.verdicts = [*record.verdicts, "too_few_launches"]
            record.parity = Parity(4, 1e-7, 2e-6 * (1 + stage) * generator.random(), 1e-3, [2.3] * 4, [2.3] * 4)
            records.append(measured(record, peak_bytes=7_400_000 + 150_000 * stage))
    return records


def troubled_sweep() -> list[Record]:
    """The same with one cell of each bad ending."""
    records = {(record.config["stage"], record.config["gpus"]): record for record in sweep()}
    records[1, 8] = bare(
        "failed", "rank 3 raised RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator", 1, 8
    )
    records[1, 8].failure = [RankEnd(3, "raised RuntimeError", "RuntimeError: enforce fail")]
    records[2, 4] = bare("timeout", "no answer within 300 s: rank 2 hung in reduce_scatter", 2, 4)
    records[2, 8] = bare(
        "unsupported",
        "engine=torch at stage=2 has no bucket_mb: fully_shard communicates per unit, not per bucket",
        2,
        8,
    )
    records[3, 2].status, records[3, 2].reason = "parity_failed", "weights differ by 0.31, tolerance 0.001"
    records[3, 2].parity = Parity(4, 0.12, 0.31, 1e-3, [2.3] * 4, [2.3] * 4)
    records[3, 8] = bare("oom", "rank 0 was killed: out of memory", 3, 8)
    return list(records.values())


def write_all(records: list[Record], folder: Path) -> Path:
    """Writes records as a sweep keeps them; returns the sweep's folder."""
    (folder / "records").mkdir(parents=True)
    for at, record in enumerate(records):
        record.write(folder / "records" / f"{at:04}-{record.cell_id}.json")
    return folder


def write_report(
    records: Sequence[Record],
    folder: Path,
    warnings: Sequence[str] = (),
    gpu_memory_bytes: int | None = None,
    *,
    drawn: bool = True,
) -> ReportPaths:
    """The report on some records, in ``folder``; without figures, which take most of its time, unless ``drawn``.

    PNG files are coarse, which takes a fraction of the time.
    """
    from analysis.figures import canvas
    from analysis.report import write
    from analysis.report.model.content import Content

    content = Content(records, warnings, gpu_memory_bytes)
    with mock.patch.object(canvas, "DPI", 50) if drawn else mock.patch.object(write, "draw", return_value=[]):
        return write.write_report(content, folder)


def answers_of(records: Sequence[Record]) -> list[Answers]:
    """The answers on some records."""
    from analysis.advice.answer import answers
    from analysis.table.frame import frame

    return answers(records, frame(records))

"""What is sent, as experiments about communication ask for it. Needs no torch."""

from __future__ import annotations

from typing import Any

from analysis.metrics.traffic import ledgers, sent_bytes
from analysis.statistics.medians import Interval
from claims import to_target
from claims.programs.sockets import matrix
from claims.suite import ExperimentError, Suite, sound
from results.record import Record

STEPS, WIDTH = 4, 256
"""Of what the kernel counts: steps, and the width of four linear layers."""
PARAMETER_BYTES = 4 * 4 * (WIDTH * WIDTH + WIDTH)
MLP: dict[str, Any] = {"factory": "workloads.mlp:MLP", "model": {"width": WIDTH}}
Matrix = list[list[float]]


def traffic(suite: Suite, engine: str, ranks: int = 4, servers: int = 0, **settings: Any) -> Matrix:
    """Bytes a step from each process to each other over the bytes of all parameters in fp32; servers come last."""
    return _over_tcp(suite, engine, ranks, servers, MLP, {"stage": 0} | settings, PARAMETER_BYTES)


def _over_tcp(
    suite: Suite, engine: str, ranks: int, servers: int, work: dict[str, Any], settings: dict[str, Any], unit: float
) -> Matrix:
    counted = suite.program(
        "claims.programs.traffic:in_steps",
        ranks + servers,
        engine=engine,
        servers=servers,
        steps=STEPS,
        settings=settings,
        **work,
    )
    return [[sent / unit for sent in row] for row in matrix(counted, STEPS)]


def sent_by_each(sent: Matrix) -> list[float]:
    return [sum(row) for row in sent]


def carried_by_each(sent: Matrix) -> list[float]:
    """Sent and received."""
    return [sum(row) + sum(column) for row, column in zip(sent, zip(*sent, strict=True), strict=True)]


def most_over_least(values: list[float]) -> float:
    return max(values) / min(values)


def server_over_worker(suite: Suite) -> float:
    """Of a real parameter server of four workers; it must stand out, or the instrument is blind."""
    *workers, server = carried_by_each(traffic(suite, "parameter_server", servers=1))
    if server < (len(workers) - 1) * max(workers):
        raise ExperimentError(f"control: a parameter server carried {server / max(workers):.2f} times a worker's bytes")
    return server / max(workers)


def bytes_by_stage(suite: Suite) -> dict[int, float]:
    """Bytes that a rank of four sends in a step, over those of all parameters in fp32; this suite's own stages."""
    return {stage: sent_over_parameters(record) for stage, record in own_stages(suite).items()}


def own_stages(suite: Suite) -> dict[int, Record]:
    return records_by_stage(suite, "native", "0,1,2,3")


def records_by_stage(suite: Suite, engine: str, stages: str) -> dict[int, Record]:
    records = suite.sweep(f"engine={engine}", f"stage={stages}", "gpus=4", "workload=mlp", "repeats=1", "steps=1")
    return {int(record.config["stage"]): record for record in records}


def parameters(record: Record) -> int:
    model = sound(record).model
    if model is None:
        raise ExperimentError(f"{record.cell_id}: its parameters were not counted")
    return model.parameter_count


def sent_over_parameters(record: Record) -> float:
    count, sent = parameters(record), sent_bytes(record)
    if sent is None:
        raise ExperimentError(f"{record.cell_id}: its collectives were not counted")
    return sent / (4 * count)


def beside_gradients(record: Record) -> float:
    """Bytes of a step's arrays in all collectives but one all-reduce of all gradients, over those of all parameters.

    Raises ExperimentError where gradients were not all-reduced whole.
    """
    whole = 4 * parameters(record)
    lines = ledgers(record)[0]
    reduced = sum(line.total_bytes for line in lines if line.kind == "all_reduce")
    if reduced < whole:
        raise ExperimentError(f"{record.cell_id}: {reduced} bytes were all-reduced, expected at least {whole}")
    return (sum(line.total_bytes for line in lines) - whole) / whole


def small_all_reduce_s(suite: Suite) -> dict[int, float]:
    """Seconds of an all-reduce of 1 KiB by world size, between hosts with links of 5 ms: the least of five."""
    records = suite.sweep(
        "workload=collectives",
        "workload.kinds=[all_reduce]",
        "workload.sizes=[1024]",
        "gpus=2,4,8",
        "repeats=1",
        "steps=5",
        "warmup=1",
        "network=lab",
        "network.rate=null",
        "network.delay=5ms",
    )
    took = {}
    for record in map(sound, records):
        took[int(record.config["gpus"])] = min(record.launches[0].collective_times[0].times_s)
    return dict(sorted(took.items()))


def compressed(suite: Suite, *names: str) -> dict[str, float]:
    """Bytes that DDP sends on digits with such compressions, over those without.

    The kernel's, since a ledger lacks what PowerSGD's hook calls from gloo's threads.
    """
    work: dict[str, Any] = {"factory": "workloads.digits:Digits", "model": {}}
    sent = {
        name: sum(map(sum, _over_tcp(suite, "torch", 2, 0, work, {"stage": 0, "compression": name}, 1.0)))
        for name in ("none", *names)
    }
    return {name: sent[name] / sent["none"] for name in names}


def steps_to_loss(suite: Suite, *names: str) -> dict[str, Interval]:
    """Steps to the loss with such compressions, over those without; median over launches with the same seeds."""
    records = suite.sweep(
        "engine=torch",
        f"compression={','.join(('none', *names))}",
        "gpus=2",
        "workload=digits",
        f"target_loss={to_target.LOSS}",
        to_target.every_image(64),
        "measure=time",
        "measure.ceiling=false",
        "repeats=6",
        "steps=400",
    )
    by_name = {str(record.config["compression"]): sound(record) for record in records}
    return {name: to_target.times_the_steps(by_name["none"], by_name[name]) for name in names}

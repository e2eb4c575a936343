"""What the systems can do."""

from __future__ import annotations

from typing import Any

from bench.engines import load
from claims.claim import Finding, Register, by_parts, claim, decided
from claims.programs.backends import CARRIED
from claims.suite import ExperimentError, Suite
from results.record import Record

CLAIMS: Register = []
ZERO_STAGES = (1, 2, 3)
SMALL = ("gpus=2", "repeats=1", "steps=2", "warmup=1")


def trained(record: Record) -> bool:
    """Ran to its end and equals a single process."""
    return record.status == "ok" and record.parity is not None and record.parity.passed


def named(record: Record) -> str:
    """Engine and stage, such as ``torch, stage 3``."""
    return f"{record.config['engine']['name']}, stage {record.config['stage']}"


def outcome(record: Record) -> str:
    return "ok, parity passed" if trained(record) else f"{record.status}: {record.reason}"


@claim(
    CLAIMS,
    "A51",
    "Horovod, TensorFlow and parameter servers offer ZeRO.",
    "Stages 1 to 3 of Horovod and of a parameter server: what the engine declares, and how a run of each ends. A "
    "system that runs one of them supports it. Control: the same three of this suite's own ZeRO run and pass parity.",
)
def others_have_zero(suite: Suite) -> Finding:
    work = ("stage=1,2,3", "workload=linear", *SMALL)
    control = suite.sweep("engine=native", *work)
    if len(control) != len(ZERO_STAGES) or not all(trained(record) for record in control):
        raise ExperimentError("control: not all stages of engine=native ran and passed parity")
    sweeps = {engine: suite.sweep(f"engine={engine}", *work) for engine in ("horovod", "parameter_server")}
    for engine, records in sweeps.items():
        other = [record.status for record in records if record.status not in ("ok", "unsupported")]
        if other or len(records) != len(ZERO_STAGES):
            raise ExperimentError(f"{engine}: {len(records)} of {len(ZERO_STAGES)} configurations; {', '.join(other)}")
    declared = {engine: list(load(f"bench.engines.{engine}").CAPABILITIES.stages) for engine in sweeps}
    ran = {
        engine: [record.config["stage"] for record in records if record.status == "ok"]
        for engine, records in sweeps.items()
    }
    holds = [bool(stages) for stages in ran.values()]
    because = (
        f"Horovod runs {len(ran['horovod'])} and the parameter server {len(ran['parameter_server'])} of ZeRO's three "
        f"stages; the others are unsupported. The suite's own ZeRO runs {len(control)}. The "
        "declarations are this suite's own, not a trial of those systems; TensorFlow has no engine here."
    )
    numbers: dict[str, Any] = {f"{engine}, stages declared": stages for engine, stages in declared.items()}
    numbers |= {f"{engine}, stages run": stages for engine, stages in ran.items()}
    numbers |= {f"{named(record)}, outcome": outcome(record) for records in sweeps.values() for record in records}
    return by_parts(holds, because, numbers)


@claim(
    CLAIMS,
    "A52",
    "Data parallelism and ZeRO combine with model parallelism.",
    "On four ranks: copies sharded over two ranks, tensor parallelism of two and a pipeline of two, each with two "
    "replicas, and tensor parallelism with sharding over its replicas. It holds for those that run and pass parity.",
)
def combines_with_model_parallelism(suite: Suite) -> Finding:
    on_four = ("gpus=4", "workload=mlp", "repeats=1", "steps=2", "warmup=1")
    ways = {
        "hybrid sharding": suite.sweep("engine=torch", "stage=3", "shard_size=2", *on_four),
        "tensor parallel": suite.sweep("engine=tensor_parallel", "engine.degree=2", "stage=0,3", *on_four),
        "pipeline": suite.sweep("engine=pipeline", "engine.degree=2", "stage=0", *on_four),
    }
    outcomes = {f"{way}, stage {record.config['stage']}": record for way, records in ways.items() for record in records}
    holds = [trained(record) for record in outcomes.values()]
    errors = [record.parity.error for record in outcomes.values() if record.parity is not None]
    because = (
        f"{sum(holds)} of {len(holds)} combinations on four ranks run and equal a single process; the largest relative "
        f"error is {max(errors, default=float('nan')):.1g}."
    )
    return by_parts(holds, because, {name: outcome(record) for name, record in outcomes.items()})


@claim(
    CLAIMS,
    "A47",
    "Choosing gloo as the backend means that GPUs communicate.",
    "An all-reduce of CPU tensors between two ranks over gloo and over NCCL, and of GPU tensors where there are two "
    "GPUs. It is refuted if gloo carries CPU tensors.",
)
def gloo_means_gpus(suite: Suite) -> Finding:
    results: dict[str, str] = suite.program("claims.programs.backends:matrix", ranks=2)[0]
    gpus = "gloo, cuda" in results
    because = (
        f"CPU tensors: gloo {'carries' if results['gloo, cpu'] == CARRIED else 'refuses'} them, NCCL "
        f"{'carries' if results['nccl, cpu'] == CARRIED else 'does not'}. "
        + (
            f"GPU tensors: gloo {results['gloo, cuda']}, NCCL {results['nccl, cuda']}."
            if gpus
            else "GPU tensors are not measured: there are no two GPUs."
        )
    )
    return decided(results["gloo, cpu"] != CARRIED, because, dict(results))


@claim(
    CLAIMS,
    "A41",
    "Data parallelism and ZeRO are unsuited to generative models.",
    "A small GPT and a small GAN at stages 0 to 3 of torch and of this suite's own engine, two ranks. It is refuted if "
    "all run and pass parity, and holds for those that do not.",
)
def unsuited_to_generative_models(suite: Suite) -> Finding:
    stages = ("engine=native,torch", "stage=0,1,2,3", *SMALL)
    gan = ("workload=module:claims.programs.gan:Gan", "workload.loss=output", "workload.input=[80]")
    models = {"GPT": suite.sweep("workload=gpt", *stages), "GAN": suite.sweep(*gan, *stages)}
    cells = {f"{model}, {named(record)}": record for model, records in models.items() for record in records}
    if len(cells) != 16:
        raise ExperimentError(f"{len(cells)} of 16 configurations")
    fails = [not trained(record) for record in cells.values()]
    counts = [f"{sum(trained(r) for r in records)} of {len(records)} with a {m}" for m, records in models.items()]
    because = f"Of combinations of engine and stage, {' and '.join(counts)} run and equal a single process."
    return by_parts(fails, because, {name: outcome(record) for name, record in cells.items()})


@claim(
    CLAIMS,
    "A48",
    "The user should choose between TCP and UDP for training's communication.",
    "Nothing is measured: it is about what backends offer and document.",
    measured=False,
)
def tcp_or_udp(suite: Suite) -> Finding:
    because = (
        "It is a matter of what backends document, and this suite has no setting for the transport. To compare them "
        "takes a backend that offers both."
    )
    return Finding("not testable here", because)


@claim(
    CLAIMS,
    "A50",
    "BERT, GPT-3 and ResNet were trained with DDP or ZeRO.",
    "Nothing is measured: it is about how others trained their models.",
    measured=False,
)
def how_models_were_trained(suite: Suite) -> Finding:
    because = "No experiment shows how others trained a model. It takes their records or their publications."
    return Finding("not testable here", because)

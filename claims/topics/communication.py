"""What is sent."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any

import numpy as np

from claims.claim import Finding, Register, Verdict, by_parts, claim, decided
from claims.programs.sockets import busiest
from claims.suite import ExperimentError, Suite
from claims.topics.sent import (
    beside_gradients,
    bytes_by_stage,
    carried_by_each,
    compressed,
    most_over_least,
    own_stages,
    parameters,
    records_by_stage,
    sent_by_each,
    sent_over_parameters,
    server_over_worker,
    small_all_reduce_s,
    steps_to_loss,
    traffic,
)

CLAIMS: Register = []
COMPRESSIONS = ("bf16", "fp16", "powersgd")


def listed(values: Mapping[Any, float], digits: int = 2) -> str:
    """Such as ``1.00, 1.00 and 1.50``."""
    *first, last = [f"{value:.{digits}f}" for value in values.values()]
    return f"{', '.join(first)} and {last}"


@claim(
    CLAIMS,
    "A1",
    "DDP averages gradients through a central server.",
    "Bytes that each of four ranks sends and receives in a step, counted by the kernel at its TCP connections; the "
    "most at least 1.05 times the least would support it. Control: a parameter server of four workers carries at least "
    "3 times what a worker does.",
)
def ddp_has_a_server(suite: Suite) -> Finding:
    over = {engine: most_over_least(carried_by_each(traffic(suite, engine))) for engine in ("torch", "native")}
    server = server_over_worker(suite)
    because = (
        f"The rank that carries most carries {max(over.values()):.3f} times what the one that carries least does; a "
        f"parameter server carries {server:.2f} times what a worker does."
    )
    numbers = {f"{engine}, most over least": ratio for engine, ratio in over.items()}
    return decided(max(over.values()) >= 1.05, because, numbers | {"parameter server over worker": server})


@claim(
    CLAIMS,
    "A2",
    "ZeRO relies on a central server.",
    "The same as for DDP, at stages 1 to 3 of torch's ZeRO and of this suite's own.",
)
def zero_has_a_server(suite: Suite) -> Finding:
    over = {
        f"{engine}, stage {stage}, most over least": most_over_least(
            carried_by_each(traffic(suite, engine, stage=stage))
        )
        for engine in ("torch", "native")
        for stage in (1, 2, 3)
    }
    server = server_over_worker(suite)
    because = (
        f"At most {max(over.values()):.3f} times between the rank that carries most and the one that carries least, at "
        f"any stage; a parameter server carries {server:.2f} times what a worker does."
    )
    return decided(max(over.values()) >= 1.05, because, over | {"parameter server over worker": server})


@claim(
    CLAIMS,
    "A4",
    "DDP synchronizes parameters in each step.",
    "What a step's collectives send in addition to one all-reduce of the gradients, N = 4, and whether a difference "
    "of 1 that is put between two replicas' weights is gone after 20 steps; over 1 % of the parameters, or a gap under "
    "0.99, would support it. Controls: ZeRO's stage 1 sends parameters, and a gap from before the model was wrapped "
    "is gone.",
)
def ddp_synchronizes_parameters(suite: Suite) -> Finding:
    torchs = records_by_stage(suite, "torch", "0,1")
    ddp = {"torch": beside_gradients(torchs[0]), "native": beside_gradients(own_stages(suite)[0])}
    zero = beside_gradients(torchs[1])
    program = "claims.programs.replicas:gap_after"
    kept, closed = (max(suite.program(program, 2, steps=20, wrapped_first=first)) for first in (True, False))
    if zero < 0.9 or closed > 0.01:
        raise ExperimentError(f"controls: {zero:.2f} of the parameters sent at stage 1, a gap of {closed:.2g} was left")
    because = (
        f"In addition to the gradients' all-reduce a step sends {100 * max(ddp.values()):.2g} % of the parameters "
        f"(ZeRO's stage 1: {100 * zero:.0f} %). A gap of 1 between replicas is {kept:.6g} after 20 steps; one "
        f"from before the model was wrapped is {closed:.2g}."
    )
    numbers = {f"{engine}, sent in addition to gradients over parameters": share for engine, share in ddp.items()} | {
        "torch stage 1, sent in addition to gradients over parameters": zero,
        "gap after 20 steps, put after wrapping": kept,
        "gap after 20 steps, put before wrapping": closed,
    }
    return decided(max(ddp.values()) > 0.01 or kept < 0.99, because, numbers)


@claim(
    CLAIMS,
    "A15",
    "The cost of synchronizing grows with the number of ranks.",
    "At 2, 4 and 8 ranks: the time of an all-reduce of 1 KiB between hosts with links of 5 ms, and bytes that a rank "
    "sends in a step of DDP, by the kernel's count. Latency grows if 1 KiB takes over 2 times as long at 8 as at 2. "
    "Bytes do not if they follow 2(N-1)/N ± 1 %, which stays below 2: 1.75 times as many at 8 as at 2, not 4 times.",
    timed=True,
)
def synchronizing_grows(suite: Suite) -> Finding:
    latency_ms = {ranks: 1000 * took for ranks, took in small_all_reduce_s(suite).items()}
    sent = {ranks: fmean(sent_by_each(traffic(suite, "torch", ranks=ranks))) for ranks in latency_ms}
    bounded = [abs(sent[ranks] / (2 * (ranks - 1) / ranks) - 1) <= 0.01 for ranks in sent]
    because = (
        f"1 KiB takes {listed(latency_ms, 0)} ms at 2, 4 and 8 ranks, {latency_ms[8] / latency_ms[2]:.1f} times "
        f"as long at 8 as at 2. A rank sends {listed(sent)} times the parameters; 2(N-1)/N is 1.00, 1.50 and 1.75."
    )
    numbers = {f"all-reduce of 1 KiB over links of 5 ms, N={n}, ms": value for n, value in latency_ms.items()}
    numbers |= {f"sent over parameters, N={n}": value for n, value in sent.items()}
    return by_parts([latency_ms[8] > 2 * latency_ms[2], not all(bounded)], because, numbers)


@claim(
    CLAIMS,
    "A16",
    "ZeRO lowers communication.",
    "Bytes that a rank sends in a step at each stage, counted at its collectives, N = 4; lower by over 2 % at any "
    "stage would support it.",
)
def zero_lowers_communication(suite: Suite) -> Finding:
    sent = bytes_by_stage(suite)
    over = {stage: sent[stage] / sent[0] for stage in (1, 2, 3)}
    because = f"Stages 1, 2 and 3 send {over[1]:.2f}, {over[2]:.2f} and {over[3]:.2f} times what DDP does."
    return decided(
        min(over.values()) < 0.98, because, {f"stage {stage} over stage 0": ratio for stage, ratio in over.items()}
    )


@claim(
    CLAIMS,
    "A17",
    "ZeRO adds no communication.",
    "The same bytes; it holds for a stage that sends at most 1.02 times what DDP does. Reported, and not decisive: "
    "what torch's stages send over gloo by the kernel's count.",
)
def zero_adds_no_communication(suite: Suite) -> Finding:
    sent = bytes_by_stage(suite)
    over = {stage: sent[stage] / sent[0] for stage in (1, 2, 3)}
    torch_sent = {stage: fmean(sent_by_each(traffic(suite, "torch", stage=stage))) for stage in range(4)}
    torch_over = {stage: torch_sent[stage] / torch_sent[0] for stage in (1, 2, 3)}
    because = (
        f"Stages 1, 2 and 3 of this suite send {listed(over)} times what DDP does. Those of torch send "
        f"{listed(torch_over)} times over gloo: stage 1 all-reduces gradients and then broadcasts parameters, and "
        "gloo's reduce-scatter sends twice what it must."
    )
    numbers = {f"native, stage {stage} over stage 0": ratio for stage, ratio in over.items()}
    numbers |= {f"torch over gloo, stage {stage} over stage 0": ratio for stage, ratio in torch_over.items()}
    return by_parts([ratio <= 1.02 for ratio in over.values()], because, numbers)


@claim(
    CLAIMS,
    "A18",
    "DDP needs no extra communication.",
    "Bytes that a rank sends in a step over those of all parameters, by the kernel's count, N = 4; refuted at "
    "2(N-1)/N = 1.5 ± 1 %, supported below 1 %. Control: one rank alone sends nothing.",
)
def ddp_needs_no_communication(suite: Suite) -> Finding:
    alone = sum(map(sum, traffic(suite, "torch", ranks=1)))
    if alone > 0.01:
        raise ExperimentError(f"control: one rank alone sent {alone:.3f} times its parameters")
    sent = fmean(sent_by_each(traffic(suite, "torch")))
    verdict: Verdict = "refuted" if abs(sent / 1.5 - 1) <= 0.01 else "supported" if sent < 0.01 else "partly"
    because = (
        f"A rank of four sends {sent:.3f} times the bytes of all parameters in each step; one alone sends {alone:g}."
    )
    return Finding(verdict, because, {"sent over parameters, N=4": sent, "sent over parameters, N=1": alone})


@claim(
    CLAIMS,
    "A19",
    "DDP's communication grows with the model.",
    "Bytes that a rank of four sends in a step for three widths of a model, and two batch sizes each: linear in the "
    "number of parameters alone with R² > 0.99 and a slope above 0.",
)
def communication_grows_with_model(suite: Suite) -> Finding:
    records = suite.sweep(
        "engine=torch",
        "workload=mlp",
        "workload.width=64,128,256",
        "batch_size=8,64",
        "gpus=4",
        "repeats=1",
        "steps=1",
        "measure.parity_steps=0",
        "measure.ceiling=false",
    )
    counts = np.array([parameters(record) for record in records])
    sent = 4 * counts * np.array([sent_over_parameters(record) for record in records])
    slope, intercept = np.polyfit(counts, sent, 1)
    r_squared = 1 - float(np.square(sent - slope * counts - intercept).sum() / np.square(sent - sent.mean()).sum())
    because = (
        f"From {counts.min():,} to {counts.max():,} parameters a rank sends {slope:.2f} bytes for each (R² = "
        f"{r_squared:.4f}), whether the batch is 8 or 64."
    )
    numbers = {"bytes sent per parameter": float(slope), "intercept, bytes": float(intercept), "R²": r_squared}
    return decided(r_squared > 0.99 and slope > 0, because, numbers)


@claim(
    CLAIMS,
    "A20",
    "All-reduce lowers the cost of the network.",
    "Bytes a step over the busiest host's link, in its busier direction, four workers, by the kernel's count: "
    "all-reduce against one parameter server, and against a server on each worker's host. It holds against what "
    "carries over 1.05 times as much.",
)
def all_reduce_lowers_cost(suite: Suite) -> Finding:
    links = {
        "all-reduce": busiest(traffic(suite, "torch"), range(4)),
        "one server": busiest(traffic(suite, "parameter_server", servers=1), range(5)),
        "a server on each host": busiest(traffic(suite, "parameter_server", servers=4), [*range(4), *range(4)]),
    }
    holds = [links[name] > 1.05 * links["all-reduce"] for name in ("one server", "a server on each host")]
    because = (
        f"Over the busiest link go {links['all-reduce']:.2f} times the parameters' bytes with all-reduce, "
        f"{links['one server']:.2f} with one server, and {links['a server on each host']:.2f} with the parameters "
        "shared out to a server on each host."
    )
    return by_parts(holds, because, {f"busiest link over parameters, {name}": link for name, link in links.items()})


@claim(
    CLAIMS,
    "A44",
    "NCCL or MPI lowers the overhead of communication.",
    "Whether another backend could send less: bytes that gloo sends in a step of DDP, by the kernel's count, over the "
    "least that an all-reduce among ranks takes. Whether it takes less time is not testable here.",
)
def backend_lowers_overhead(suite: Suite) -> Finding:
    over = {n: fmean(sent_by_each(traffic(suite, "torch", ranks=n))) / (2 * (n - 1) / n) for n in (2, 4)}
    because = (
        f"gloo sends {listed(over, 3)} times the least that an all-reduce among 2 and 4 ranks takes, so another "
        f"backend can save {'bytes and time' if max(over.values()) > 1.05 else 'time only'}, unless switches add up. "
        "To time it takes two GPUs for NCCL, and for MPI a torch that was built with it."
    )
    return Finding("not testable here", because, {f"gloo's bytes over the least, N={n}": r for n, r in over.items()})


@claim(
    CLAIMS,
    "A45",
    "Mixed precision lowers communication.",
    "Bytes that a rank sends in a step under autocast to bf16, with bf16 weights over fp32 master weights, and in fp32 "
    "with a hook that casts gradients to bf16, each over fp32's; it holds for those below 0.98.",
)
def mixed_precision_lowers_communication(suite: Suite) -> Finding:
    records = suite.sweep(
        "engine=native", "precision=fp32,amp_bf16,bf16_master", "gpus=2", "workload=mlp", "repeats=1", "steps=1"
    )
    sent = {str(record.config["precision"]): sent_over_parameters(record) for record in records}
    over = {
        "autocast": sent["amp_bf16"] / sent["fp32"],
        "bf16 weights": sent["bf16_master"] / sent["fp32"],
        "hook": compressed(suite, "bf16")["bf16"],
    }
    because = (
        f"Autocast sends {over['autocast']:.2f} times what fp32 does, bf16 weights and gradients over fp32 masters "
        f"{over['bf16 weights']:.2f} times, a hook that casts gradients {over['hook']:.2f} times."
    )
    numbers = {f"{name}, sent over fp32": ratio for name, ratio in over.items()}
    return by_parts([ratio < 0.98 for ratio in over.values()], because, numbers)


@claim(
    CLAIMS,
    "A46",
    "Compressing gradients lowers communication and keeps training intact.",
    "DDP on digits, two ranks: bytes sent by the kernel's count at most 0.55 times as many, and the steps to a loss of "
    "0.3 at most 1.1 times as many (median of six launches, each from its own seed); for bf16, fp16 and PowerSGD of "
    "rank 1. Partly if not for all of them.",
)
def compression_helps(suite: Suite) -> Finding:
    sent = compressed(suite, *COMPRESSIONS)
    steps = steps_to_loss(suite, *COMPRESSIONS)
    holds = [sent[name] <= 0.55 and steps[name].value <= 1.1 for name in COMPRESSIONS]
    because = (
        f"bf16, fp16 and PowerSGD send {listed(sent, 3)} times as much, and need "
        f"{listed({name: ratio.value for name, ratio in steps.items()})} times the steps to the same loss."
    )
    numbers = {f"{name}, sent over uncompressed": ratio for name, ratio in sent.items()}
    for name, ratio in steps.items():
        numbers |= {
            f"{name}, steps to the loss over those without compression": ratio.value,
            f"{name}, steps to the loss over those without, low": ratio.low,
            f"{name}, steps to the loss over those without, high": ratio.high,
        }
    return by_parts(holds, because, numbers)

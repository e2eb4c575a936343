"""What is computed."""

from __future__ import annotations

import itertools
import statistics
from typing import Any

from claims.claim import Finding, Register, Verdict, claim, decided
from claims.suite import ExperimentError, Suite

CLAIMS: Register = []

Answers = list[dict[str, Any]]
"""The values that each rank of a program returned, by name."""
ENGINES = ("native", "torch")
ZERO = [f"{engine} {stage}" for engine in ENGINES for stage in (1, 2, 3)]
OWNERS = (("native", 1), ("native", 3), ("torch", 1))
STEPS = 100
FEW_STEPS = 20
ROUNDING = 1e-6
FLOPS_MARGIN = 0.01
PADDING = 0.05
"""Of shards of a small model, as a share of a rank's part."""
FASTER = 0.5
"""Time of an update on four ranks over that of DDP's below which it counts as shared; a quarter is expected."""
MARKERS = ("RegisterPostBackwardFunctionBackward",)
"""Nodes with which fully_shard learns that a unit's backward has ended; they compute nothing."""


def traces(suite: Suite) -> Answers:
    return suite.program("claims.programs.computed:of_stages", ranks=2, names=ENGINES)


def trained(suite: Suite, ranks: int) -> Answers:
    return suite.program("claims.programs.updated:all_stages", ranks=ranks, names=ENGINES, steps=FEW_STEPS)


def ddp_of(kind: str) -> str:
    """Stage 0 of the same engine."""
    return f"{kind.split()[0]} 0"


@claim(
    CLAIMS,
    "A8",
    "ZeRO keeps fixed groups of parameters and adaptive groups, which change during training.",
    f"Which elements each of three ranks' optimizers update, seen before each of {STEPS} steps, in two runs with other "
    "weights and data; stages 1 and 3 of the suite's engine, and ZeroRedundancyOptimizer. Any change, in a run or from "
    "one to the other, supports it. Control: an assignment by the size of gradients must be seen to change.",
)
def zero_has_adaptive_groups(suite: Suite) -> Finding:
    answers = suite.program("claims.programs.owners:owners", ranks=3, kinds=OWNERS, steps=STEPS)
    kinds = [f"{engine} {stage}" for engine, stage in OWNERS]
    changes = {kind: sum(answer[kind]["changes"] for answer in answers) for kind in kinds}
    adaptive = max(answer["adaptive"]["changes"] for answer in answers)
    elements = {kind: owned_once([owned for answer in answers for owned in answer[kind]["owned"]]) for kind in kinds}
    if adaptive == 0 or len(set(elements.values())) > 1:
        raise ExperimentError(f"the control changed in {adaptive} steps; elements that have an owner: {elements}")
    because = (
        f"In 2 runs of {STEPS} steps the one owner of each of {elements[kinds[0]]:,} elements was seen to change "
        f"{sum(changes.values())} times, from step to step or from run to run; an assignment by the size of gradients "
        f"differs from its first at {adaptive} of {STEPS} steps."
    )
    numbers = {f"{kind}: changes": count for kind, count in changes.items()}
    return decided(any(changes.values()), because, numbers | {"control: steps with a change": adaptive})


def owned_once(owned: list[tuple[str, int, int]]) -> int:
    """Elements that ranks own together. Raises ExperimentError if one is owned twice."""
    ranges = sorted(owned)
    for (name, _, stop), (following, start, _) in itertools.pairwise(ranges):
        if name == following and start < stop:
            raise ExperimentError(f"{name}: elements {start} to {stop} have two owners")
    return sum(stop - start for _, start, stop in ranges)


@claim(
    CLAIMS,
    "A9",
    "ZeRO updates only some of the parameters in training, and this biases the model.",
    f"Weights after {FEW_STEPS} steps of Adam at stages 1, 2 and 3 of two engines, on every rank: how many elements "
    "changed, and distance to stage 0. Refuted if as many changed as under DDP, and weights have the same bits on two "
    "ranks and differ by at most 1e-6 on four. Control: ranks that keep their part of the update to themselves.",
)
def zero_updates_some(suite: Suite) -> Finding:
    two, four = trained(suite, 2), trained(suite, 4)
    everything = [(answer, kind) for answers in (two, four) for answer in answers for kind in ZERO]
    all_change = all(answer[kind]["changed"] == answer[ddp_of(kind)]["changed"] for answer, kind in everything)
    same_bits = all(answer[kind]["same bits"] for answer in two for kind in ZERO)
    distance = max(answer[kind]["distance"] for answer in four for kind in ZERO)
    partial = min(answer["partial"]["distance"] for answer in (*two, *four))
    missed = max(answer["partial"]["elements"] - answer["partial"]["changed"] for answer in two)
    if missed == 0 or partial < 1000 * ROUNDING:
        raise ExperimentError(f"the control left {missed} elements as they were and is {partial:.2g} from DDP")
    changed = min(answer[kind]["changed"] for answer, kind in everything)
    bits = "are bitwise those of DDP" if same_bits else "are not bitwise those of DDP"
    because = (
        f"At every stage {changed:,} of {two[0]['native 0']['elements']:,} elements changed; on two ranks the weights "
        f"{bits}, on four they differ by {distance:.1g} of their norm (ranks that keep their updates: {partial:.2g})."
    )
    numbers = {
        "fewest elements changed": changed,
        "elements changed under DDP": two[0]["native 0"]["changed"],
        "same bits on two ranks": same_bits,
        "largest distance to DDP on four ranks, of the norm": distance,
        "control: least distance to DDP, of the norm": partial,
        "control: elements that a rank of two left": missed,
    }
    return decided(not (all_change and same_bits and distance <= ROUNDING), because, numbers)


@claim(
    CLAIMS,
    "A24",
    "Under ZeRO each rank computes only the gradients of its own shard.",
    "Floating-point operations of forward and backward, counted on each of two ranks at each stage of two engines. "
    "Over 1 % fewer than under DDP support it. Control: ranks that do compute gradients of their own layers only.",
)
def zero_computes_own_gradients(suite: Suite) -> Finding:
    answers = traces(suite)
    over = {kind: min(answer[kind]["flops"] / answer[ddp_of(kind)]["flops"] for answer in answers) for kind in ZERO}
    control = max(answer["own gradients only"]["flops"] / answer["native 0"]["flops"] for answer in answers)
    if control > 1 - FLOPS_MARGIN:
        raise ExperimentError(f"ranks that compute their own gradients only are seen to need {control:.3f} of DDP's")
    because = (
        f"At stages 1, 2 and 3 a rank has {min(over.values()):.3f} to {max(over.values()):.3f} times the operations of "
        f"DDP; with its own gradients only it has {control:.2f} times as many."
    )
    numbers = {f"{kind}: operations over DDP's": ratio for kind, ratio in over.items()}
    return decided(min(over.values()) < 1 - FLOPS_MARGIN, because, numbers | {"control": control})


@claim(
    CLAIMS,
    "A25",
    "ZeRO saves computation.",
    "Forward and backward: operations of a rank, as for A24. Update: elements that each of four ranks updates, and "
    f"processor time of it (least of {FEW_STEPS} steps, mean over ranks). Supported if the operations fall by over "
    "1 %; partly if only the update does, to 1/N of the elements and under half of the time at each stage.",
    timed=True,
)
def zero_saves_computation(suite: Suite) -> Finding:
    answers, four = traces(suite), trained(suite, 4)
    flops = min(answer[kind]["flops"] / answer[ddp_of(kind)]["flops"] for answer in answers for kind in ZERO)
    whole = four[0]["native 0"]["elements"]
    largest = max(answer[kind]["updated"] for answer in four for kind in ZERO) / whole
    together = {sum(answer[kind]["updated"] for answer in four) for kind in ZERO}
    times = update_s(suite)
    shorter = {stage: times[stage] / times[0] for stage in (1, 2, 3)}
    less = largest <= (1 + PADDING) / 4 and together == {whole} and max(shorter.values()) < FASTER
    verdict: Verdict = "supported" if flops < 1 - FLOPS_MARGIN else "partly" if less else "refuted"
    because = (
        f"Forward and backward take {flops:.3f} times the operations of DDP. Of the update a rank of four has at most "
        f"{largest:.3f} of the elements, and it takes "
        f"{', '.join(f'{ratio:.2f}' for ratio in shorter.values())} of DDP's processor time at stages 1, 2, 3."
    )
    numbers = {f"stage {stage}: update, ms": 1000 * seconds for stage, seconds in times.items()}
    shares = {"operations over DDP's": flops, "largest share of the elements that a rank of four updates": largest}
    return Finding(verdict, because, shares | numbers)


def update_s(suite: Suite) -> dict[int, float]:
    """Seconds of processor time that a rank of four needs for an update, by stage; mean over ranks."""
    answers = suite.program("claims.programs.updated:update_s", ranks=4, width=1024, steps=FEW_STEPS)
    return {stage: statistics.fmean(answer[f"stage {stage}"] for answer in answers) for stage in range(4)}


@claim(
    CLAIMS,
    "A38",
    "ZeRO works by deferring computation and by splitting the graph over devices.",
    "The model's operators in forward and backward, in order and with their shapes, and the nodes of autograd in the "
    "order of backward: stages 1, 2 and 3 of two engines against stage 0, on each of two ranks. Any difference "
    "supports it. Control: a model that does leave half of forward to backward must be seen to differ.",
)
def zero_defers_computation(suite: Suite) -> Finding:
    answers = traces(suite)
    differing = [kind for kind in ZERO if any(differs(answer[kind], answer[ddp_of(kind)]) for answer in answers)]
    if not all(differs(answer["deferred"], answer["native 0"]) for answer in answers):
        raise ExperimentError("a model that defers half of its forward leaves the same trace")
    ddp, deferred = answers[0]["native 0"], answers[0]["deferred"]
    where = f"differ from DDP's at {', '.join(differing)}" if differing else "are DDP's, all of them and in its order"
    because = (
        f"On each rank the {len(ddp['operations'])} operators and {len(ddp['nodes'])} nodes of a step {where} (with "
        f"half of forward deferred there are {len(deferred['operations'])} operators)."
    )
    numbers = {
        "operators of a step": len(ddp["operations"]),
        "nodes of backward": len(ddp["nodes"]),
        "traces that differ from DDP's": len(differing),
        "traces compared": len(ZERO) * len(answers),
        "control: operators with half of forward deferred": len(deferred["operations"]),
    }
    return decided(bool(differing), because, numbers)


def differs(trace: dict[str, Any], ddp: dict[str, Any]) -> bool:
    nodes = [node for node in trace["nodes"] if node not in MARKERS]
    return bool(trace["operations"] != ddp["operations"] or nodes != ddp["nodes"])


@claim(
    CLAIMS,
    "A39",
    "ZeRO sends gradients asynchronously.",
    f"The suite's engine, stages 1, 2 and 3 on two ranks, with overlap and without: gradients sent before backward has "
    f"reached its last node, and weights after {FEW_STEPS} steps. Supported if weights differ; partly if gradients are "
    "sent during backward and no bit differs; else refuted. Control: gradients applied a step late must be seen.",
)
def gradients_are_asynchronous(suite: Suite) -> Finding:
    answers = suite.program("claims.programs.overlapped:overlapped", ranks=2, steps=FEW_STEPS)
    stages = [answer[f"stage {stage}"] for answer in answers for stage in (1, 2, 3)]
    early = min(stage["sent within backward"] for stage in stages)
    quiet = max(stage["without overlap, sent within backward"] for stage in stages)
    differing = max(stage["differing elements"] for stage in stages)
    stale = min(answer["stale"]["differing elements"] for answer in answers)
    if stale == 0 or quiet > 0:
        raise ExperimentError(f"late gradients change {stale} elements; {quiet} are sent early without overlap")
    verdict: Verdict = "supported" if differing else "partly" if early else "refuted"
    because = (
        f"With overlap {early} of {stages[0]['sent']} buckets are sent while backward runs; compared with none, "
        f"{differing} of {answers[0]['stale']['elements']:,} weights differ (with gradients a step late: {stale:,})."
    )
    numbers = {
        "buckets": stages[0]["sent"],
        "fewest sent within backward, with overlap": early,
        "most sent within backward, without": quiet,
        "elements that differ": differing,
        "control: elements that differ with gradients a step late": stale,
    }
    return Finding(verdict, because, numbers)

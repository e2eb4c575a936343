"""How gradients are averaged."""

from __future__ import annotations

from statistics import mean
from typing import Any

from claims.claim import Finding, Register, by_parts, claim, decided
from claims.suite import ExperimentError, Suite, sound
from results.record import Record

CLAIMS: Register = []

RANKS = 4
EQUAL = 1e-6
"""Largest distance between weights of two ways to train that count as the same, as a share of what training moved."""
EQUAL_FP64 = 1e-14
APART = 0.1
"""Least distance, likewise, of replicas that count as diverged."""
PARITY_STEPS = 50


def averaging(suite: Suite, function: str, ranks: int = RANKS, **arguments: Any) -> list[Any]:
    """What the program's ranks returned."""
    return suite.program(f"claims.programs.averaging:{function}", ranks, **arguments)


def parity_errors(suite: Suite) -> dict[str, float]:
    """Parity error of stage 0 after fifty steps of SGD, by engine and ranks."""
    records = suite.sweep(
        "engine=native,torch",
        "stage=0",
        "gpus=2,4",
        "workload=digits",
        "optimizer=sgd",
        f"measure.parity_steps={PARITY_STEPS}",
        "repeats=1",
        "steps=1",
        "warmup=0",
        "measure.ceiling=false",
    )
    return {f"{record.config['engine']['name']}, {record.config['gpus']} ranks": error_of(record) for record in records}


def error_of(record: Record) -> float:
    parity = sound(record).parity
    if parity is None or parity.steps != PARITY_STEPS:
        raise ExperimentError(f"{record.cell_id}: parity of {PARITY_STEPS} steps was not measured")
    return parity.error


@claim(
    CLAIMS,
    "A3",
    "DDP averages gradients over the ranks, so that it trains as one process with the whole batch does.",
    "Weights and losses of 50 steps of SGD on N = 2 and 4 ranks against one process on the N-times batch; the "
    "weights' distance is a share of what training moved them. At most 1e-6 in fp32 and 1e-14 in fp64 supports it, "
    "if ranks that never average end over 0.1 away; one of the two alone makes it partly true.",
)
def ddp_averages(suite: Suite) -> Finding:
    sweep = parity_errors(suite)
    plain = {dtype: averaging(suite, "against_one_process", dtype=dtype)[0] for dtype in ("fp32", "fp64")}
    errors = {dtype: max(gaps["weights"], gaps["losses"]) for dtype, gaps in plain.items()}
    errors["fp32"] = max(errors["fp32"], *sweep.values())
    never = min(gaps["without averaging"] for gaps in plain.values())
    if never <= APART:
        raise ExperimentError(f"ranks that never average end only {never:.2g} away: nothing here tells them apart")
    holds = (errors["fp32"] <= EQUAL, errors["fp64"] <= EQUAL_FP64)
    return by_parts(
        holds,
        f"After {PARITY_STEPS} steps DDP is at most {errors['fp32']:.1g} of what training moved away from one process "
        f"in fp32 and {errors['fp64']:.1g} in fp64; ranks that never average are {never:.2f} away.",
        {
            **{f"parity error, fp32, {cell}": error for cell, error in sweep.items()},
            **{f"{what}, {dtype}": value for dtype, gaps in plain.items() for what, value in gaps.items()},
        },
    )


@claim(
    CLAIMS,
    "A5",
    "DDP and ZeRO update with the gradient of the sum of the ranks' losses.",
    "Weights after 50 steps of SGD at a learning rate η on 4 ranks, in fp64, against one process that descends the sum "
    "of the ranks' losses at η, and one that descends their mean. Within 1e-6 of the sum supports it; the mean, and "
    "ranks at 4η against the sum, must be within 1e-6 for it to be refuted.",
)
def update_uses_the_sum(suite: Suite) -> Finding:
    by_method = {name: averaging(suite, "sum_or_mean", zero=name == "ZeRO")[0] for name in ("DDP", "ZeRO")}
    from_sum = min(gaps["sum"] for gaps in by_method.values())
    from_mean = max(gaps["mean"] for gaps in by_method.values())
    rescaled = max(gaps["sum, ranks at lr times their number"] for gaps in by_method.values())
    if from_sum > EQUAL and max(from_mean, rescaled) > EQUAL:
        raise ExperimentError(f"neither the sum nor the mean: {by_method}")
    return decided(
        from_sum <= EQUAL,
        f"Both are {from_mean:.0e} of what training moved away from descent of the mean and at least {from_sum:.2f} "
        f"from that of the sum; with {RANKS} times the learning rate they are {rescaled:.0e} from the sum.",
        {f"{name}, distance from {what}": value for name, gaps in by_method.items() for what, value in gaps.items()},
    )


@claim(
    CLAIMS,
    "A6",
    "DDP's update sets the weights to the mean of the ranks' gradients.",
    "The rule as it is written against gradient descent: 50 steps on digits from 5 seeds, loss at the first and the "
    "last. Falling by at least half as much as descent's supports it, by less than a tenth refutes it, if DDP ends "
    "within 1e-6 of descent and over 0.1 from the rule.",
)
def weights_become_gradients(suite: Suite) -> Finding:
    values = averaging(suite, "weights_from_gradients", ranks=2, seeds=5)[0]
    gains = {rule: mean(values["first"]) - mean(values[rule]) for rule in ("literal", "descent")}
    share = gains["literal"] / gains["descent"]
    is_descent = values["descent from DDP"] <= EQUAL and values["literal from DDP"] > APART
    if gains["descent"] <= 0:
        raise ExperimentError("gradient descent does not lower the loss either")
    return Finding(
        "refuted" if share < 0.1 and is_descent else "supported" if share >= 0.5 else "partly",
        f"In {PARITY_STEPS} steps the rule lowers the loss by {gains['literal']:.3f} (from "
        f"{mean(values['first']):.2f}) and descent by {gains['descent']:.2f}. DDP ends "
        f"{values['descent from DDP']:.0e} of its way from descent and {values['literal from DDP']:.2f} from the rule.",
        {
            "loss at the first step, by seed": values["first"],
            "loss at the last step, the rule": values["literal"],
            "loss at the last step, descent": values["descent"],
            "distance of DDP from descent": values["descent from DDP"],
            "distance of DDP from the rule": values["literal from DDP"],
        },
    )


@claim(
    CLAIMS,
    "A7",
    "ZeRO scales the gradient of a group of parameters by one over the number of parameters in the group.",
    "Weights after 50 steps of SGD with ZeroRedundancyOptimizer on 4 ranks, in fp64, against descent by gradients "
    "summed over the ranks and divided. The divisor is the size of the owner's group (in elements, or in tensors), or "
    "the number of ranks. Within 1e-6 of a division by the group's size supports it.",
)
def groups_are_scaled(suite: Suite) -> Finding:
    values = averaging(suite, "groups_scaled")[0]
    by_group = {what: values[f"over {what}"] for what in ("elements", "tensors")}
    if values["over ranks"] > EQUAL and min(by_group.values()) > EQUAL:
        raise ExperimentError(f"ZeRO is none of them: {values}")
    return decided(
        min(by_group.values()) <= EQUAL,
        f"Dividing by the number of ranks ends {values['over ranks']:.0e} of ZeRO's way from it; by the elements of a "
        f"group {by_group['elements']:.2f}, by its tensors {by_group['tensors']:.2f}.",
        {
            **{f"distance of a division by {what[5:]}": values[what] for what in values if what.startswith("over")},
            "elements of the ranks' groups": values["elements of groups"],
        },
    )


def replicas(suite: Suite, *rules: str) -> dict[str, dict[str, float]]:
    return {rule: averaging(suite, "replicas", rule=rule)[0] for rule in rules}


def spreads(by_rule: dict[str, dict[str, float]]) -> dict[str, float]:
    return {f"{rule}: {what}": value for rule, distances in by_rule.items() for what, value in distances.items()}


@claim(
    CLAIMS,
    "A10",
    "ZeRO's update needs no aggregation: each rank descends the gradient of its own loss.",
    "Largest distance between the ranks' weights after 50 steps of SGD on 4 ranks, as a share of what training moved: "
    "exactly 0 under ZeroRedundancyOptimizer and over 0.1 under the rule refutes it. So must be ranks that each update "
    "their own shard by their own gradient and share it, against one process on the whole batch.",
)
def zero_needs_no_aggregation(suite: Suite) -> Finding:
    by_rule = replicas(suite, "ZeRO", "own gradient", "shards")
    zero, literal, shards = by_rule["ZeRO"], by_rule["own gradient"], by_rule["shards"]
    if zero["from one process"] > EQUAL:
        raise ExperimentError(f"ZeRO does not train as one process does: {zero['from one process']:.2g}")
    refuted = zero["spread"] == 0 and literal["spread"] > APART and shards["from one process"] > APART
    supported = literal["spread"] <= EQUAL or shards["from one process"] <= EQUAL
    return Finding(
        "refuted" if refuted else "supported" if supported else "partly",
        f"Replicas are {zero['spread']:g} apart under ZeRO and {literal['spread']:.2f} of what training moved under "
        f"the rule. Shards updated by their owner's gradient alone are {shards['from one process']:.2f} away from one "
        f"process on the whole batch, ZeRO's {zero['from one process']:.0e}.",
        spreads(by_rule),
    )


@claim(
    CLAIMS,
    "A49",
    "In a step at a learning rate of 0.1 on the loss (θ - 1)², two ranks at 2 and 3 have the gradients -2 and -4, "
    "synchronized -2, and go to 2.2 and 3.4.",
    "The five numbers, as autograd, all-reduce and SGD have them, in fp64 (within 1e-12): all must agree to support "
    "it, none to refute it.",
)
def worked_example(suite: Suite) -> Finding:
    first, second = averaging(suite, "worked_example", ranks=2)
    example = {"gradient 0": -2.0, "gradient 1": -4.0, "synced": -2.0, "θ 0": 2.2, "θ 1": 3.4}
    measured = {
        "gradient 0": first["gradient"],
        "gradient 1": second["gradient"],
        "synced": first["synced"],
        "θ 0": first["updated"],
        "θ 1": second["updated"],
    }
    return by_parts(
        [abs(value - example[what]) <= 1e-12 for what, value in measured.items()],
        f"The gradients are {measured['gradient 0']:g} and {measured['gradient 1']:g}, their mean "
        f"{measured['synced']:g}, and θ becomes {measured['θ 0']:.4g} and {measured['θ 1']:.4g}: the gap of "
        f"{measured['θ 1'] - measured['θ 0']:.3g} stays. DDP starts both at {second['start under DDP']:g}, and both "
        f"become {second['updated under DDP']:.4g}.",
        {
            **measured,
            "θ 0, start under DDP": first["start under DDP"],
            "θ 1, start under DDP": second["start under DDP"],
            "θ 0 under DDP": first["updated under DDP"],
            "θ 1 under DDP": second["updated under DDP"],
        },
    )


@claim(
    CLAIMS,
    "A53",
    "All-reducing the loss synchronizes training.",
    "Largest distance between the ranks' weights after 50 steps of SGD on 4 ranks that all-reduce the loss before "
    "backward, in place or as a part of the graph, as a share of what training moved; over 0.1 for both refutes it, if "
    "DDP's is exactly 0.",
)
def reducing_the_loss(suite: Suite) -> Finding:
    by_rule = replicas(suite, "loss", "loss in graph", "own gradient", "DDP")
    if by_rule["DDP"]["spread"] != 0:
        raise ExperimentError(f"DDP's replicas are {by_rule['DDP']['spread']:.2g} apart")
    spread = [by_rule["loss"]["spread"], by_rule["loss in graph"]["spread"]]
    return Finding(
        "refuted" if min(spread) > APART else "supported" if max(spread) <= EQUAL else "partly",
        f"Replicas are {spread[0]:.2f} of what training moved apart where the value is reduced, {spread[1]:.2f} where "
        f"the graph has it, {by_rule['own gradient']['spread']:.2f} where nothing is shared and "
        f"{by_rule['DDP']['spread']:g} under DDP.",
        spreads(by_rule),
    )

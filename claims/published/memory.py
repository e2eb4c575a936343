"""Published bytes of model state, and ours."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from analysis.theory.paper import paper_state
from claims.claim import Compared, ComparisonPlot, Finding, PlottedCurve, Register, claim, reproduced
from claims.suite import Suite
from claims.topics.memory import weighed
from results.model import element_count
from results.record import Record, world_size

CLAIMS: Register = []

GB = 1e9
MB = 1e6
PARAMETERS = 7_500_000_000
ZERO_TABLE: dict[int, tuple[float, float, float]] = {
    4: (52.5, 41.3, 30.0),
    16: (35.6, 21.6, 7.5),
    64: (31.4, 16.6, 1.88),
    256: (30.4, 15.4, 0.47),
    1024: (30.1, 15.1, 0.12),
}
"""GB per GPU at stages 1, 2 and 3, by GPUs."""
MEASURED = {1: "native", 2: "native", 3: "torch"}
"""The engine whose stage keeps what the paper's does: native's stage 3 keeps no 16-bit parameters between steps."""
RECIPE_MB = {"model": 335.0, "DDP built": 656.0, "before the update": 992.0}
RECIPE_PEAK_MB = {1: 1361.0, 0: 1697.0}
BLOCK = 2 << 20
"""CUDA's caching allocator rounds a large block up to a multiple of it."""


@claim(
    CLAIMS,
    "P1",
    "Model state per GPU of a model of 7.5 billion parameters at stages 1, 2 and 3 on 4 to 1,024 GPUs.",
    "Bytes per parameter that rank 0 of worlds of 4 to 1,024 keeps of a smaller model, at the allocator, times 7.5 "
    "billion; and the formulas. Reproduced if each is within 2 % or half of the last printed digit. In shape if each "
    "stage keeps less than the one before it at every size.",
    source="ZeRO (Rajbhandari et al., SC 2020), table 1",
)
def zero_table(suite: Suite) -> Finding:
    records = {
        (str(record.config["engine"]["name"]), int(record.config["stage"]), world_size(record)): record
        for record in suite.sweep("experiment=published/p1")
    }
    ours = {
        (stage, ranks): state_per_parameter(records[MEASURED[stage], stage, ranks]) * PARAMETERS / GB
        for ranks in ZERO_TABLE
        for stage in MEASURED
    }
    formula = {
        (stage, ranks): paper_state(PARAMETERS, stage, ranks, param=2, grad=2, optimizer=12) / GB
        for stage, ranks in ours
    }
    compared = [
        Compared(f"stage {stage}, {ranks} GPUs, {how}", row[stage - 1], values[stage, ranks], "GB")
        for how, values in (("measured", ours), ("formula", formula))
        for ranks, row in ZERO_TABLE.items()
        for stage in MEASURED
    ]
    trillion = paper_state(10**12, 3, 1024, param=2, grad=2, optimizer=12) / GB
    compared.append(Compared("10^12 parameters, stage 3, 1024 GPUs, formula", 15.6, trillion, "GB"))
    native = {
        ranks: state_per_parameter(records["native", 3, ranks]) * ranks
        for ranks in ZERO_TABLE
        if records["native", 3, ranks].status == "ok"
    }
    furthest = max(compared, key=lambda one: abs(one.difference))
    because = (
        f"{len(compared)} values; the furthest is {furthest.what}: {furthest.ours:.3g} instead of "
        f"{furthest.published:.3g} GB. Native's stage 3 needs less: {min(native.values()):.1f} bytes over all ranks "
        "instead of 16."
    )
    order = all(ours[1, ranks] > ours[2, ranks] > ours[3, ranks] for ranks in ZERO_TABLE)
    digits = all(abs(one.ours - one.published) <= max(0.02 * one.published, 0.005) for one in compared)
    lines = [
        PlottedCurve(f"stage {stage}", list(map(float, ZERO_TABLE)), [row[stage - 1] for row in ZERO_TABLE.values()])
        for stage in MEASURED
    ]
    own = [PlottedCurve(line.name, line.x, [ours[at + 1, int(x)] for x in line.x]) for at, line in enumerate(lines)]
    return reproduced(
        compared,
        float("inf") if digits else 0.0,
        because,
        in_shape=order,
        numbers={
            f"native, stage 3, {ranks} ranks: bytes per parameter over all": value for ranks, value in native.items()
        },
        plot=ComparisonPlot("GPUs", "model state (GB per GPU)", lines, own),
    )


def state_per_parameter(record: Record) -> float:
    """Bytes of model state per parameter that the fullest measured rank keeps. Raises ExperimentError."""
    model = weighed(record).model
    assert model is not None
    return max(rank.model_state_bytes for rank in record.memory) / model.parameter_count


@claim(
    CLAIMS,
    "P2",
    "Memory of 20 layers of 2,000 with Adam on two GPUs: 335 MB, 656 with DDP, 992 before the update; after it 1361 MB "
    "with ZeroRedundancyOptimizer and 1697 without.",
    "The same model and batch at stages 0 and 1 of engine=torch, at the allocator: parameters, and with buckets, "
    "gradients and optimizer state added. Reproduced if each is within 5 %. In shape if each phase adds what the "
    "published one adds, within 15 %.",
    source="PyTorch recipes, Shard Optimizer States with ZeroRedundancyOptimizer",
)
def zero_redundancy_recipe(suite: Suite) -> Finding:
    records = {int(record.config["stage"]): record for record in suite.sweep("experiment=published/p2")}
    phases = {stage: by_phase(record) for stage, record in records.items()}
    compared = [Compared(name, value, phases[1][name], "MB") for name, value in RECIPE_MB.items()]
    compared += [
        Compared(f"after the update, stage {stage}", value, phases[stage]["after the update"], "MB")
        for stage, value in RECIPE_PEAK_MB.items()
    ]
    added = [(b.published - a.published, b.ours - a.ours) for a, b in pairwise(compared[:4])]
    added.append((compared[4].published - compared[3].published, compared[4].ours - compared[3].ours))
    rounded = rounded_mb(records[0])
    furthest = max(compared, key=lambda one: abs(one.difference))
    because = (
        f"{', '.join(f'{one.ours:.0f}' for one in compared)} MB; the furthest, {furthest.what}, differs by "
        f"{100 * furthest.difference:.1f} %. CUDA's allocator rounds blocks up to 2 MiB, which makes {rounded:.0f} MB "
        f"of the model's {compared[0].ours:.0f}."
    )
    in_shape = all(abs(own / other - 1) <= 0.15 for other, own in added)
    numbers = {"model, blocks rounded up to 2 MiB, MB": rounded}
    return reproduced(compared, 0.05, because, in_shape=in_shape, numbers=numbers)


def by_phase(record: Record) -> dict[str, float]:
    """MB that the fullest rank keeps after each phase of a first step."""
    rank = max(weighed(record).memory, key=lambda one: one.model_state_bytes)
    kinds = {"model": rank.state_bytes["params"], "DDP built": rank.rest_by_kind.get("communication", 0)}
    kinds |= {"before the update": rank.state_bytes["grads"], "after the update": rank.state_bytes["optimizer"]}
    total, phases = 0.0, {}
    for name, size in kinds.items():
        total += size / MB
        phases[name] = total
    return phases


def rounded_mb(record: Record) -> float:
    """MB of the parameters if each that is a block of its own is rounded up to 2 MiB."""
    assert record.model is not None
    sizes = [4 * element_count(parameter.shape) for parameter in record.model.parameters]
    return sum(-(-size // BLOCK) * BLOCK if size >= BLOCK else size for size in sizes) / MB


@claim(
    CLAIMS,
    "P14",
    "A model of 181 billion parameters needs 37 GB per GPU and reaches 134 TFLOPS with ZeRO-1, 72 GB and 113 without.",
    "Model state of stage 1 over stage 0 with 16-bit weights and fp32 master weights, of rank 0 of a world of 8, and "
    "the elements that a rank updates, stage 1 over stage 0. In shape if both are lower, as memory and time are there. "
    "Reproduced is not possible: the source does not state the activations or the degree of data parallelism.",
    source="bigscience-workshop, issue 48",
)
def bigscience(suite: Suite) -> Finding:
    records = {int(record.config["stage"]): record for record in suite.sweep("experiment=published/p14")}
    kept = {stage: state_per_parameter(record) for stage, record in records.items()}
    optimizer = {
        stage: max(rank.state_bytes["optimizer"] for rank in record.memory) for stage, record in records.items()
    }
    ratio, updated = kept[1] / kept[0], optimizer[1] / optimizer[0]
    compared = [Compared("memory, stage 1 over stage 0", 37 / 72, ratio)]
    because = (
        f"Model state at stage 1 is {ratio:.2f} times that of stage 0 (published, with activations: {37 / 72:.2f}). A "
        f"rank updates {updated:.2f} times the elements. The speed was not measured."
    )
    numbers: dict[str, Any] = {f"stage {stage}, bytes per parameter": value for stage, value in kept.items()}
    numbers["updated elements, stage 1 over stage 0"] = updated
    return reproduced(compared, 0.0, because, in_shape=ratio < 1 and updated < 1, numbers=numbers)


@claim(
    CLAIMS,
    "P17",
    "Muon lowers optimizer state from 8 to 4 bytes per parameter, and the peak from 34.5 to 31.4 GiB.",
    "Bytes that torch's Muon and AdamW keep for the same matrices after a step. Reproduced if both are within 1 %. The "
    "peak depends on a model that the source does not describe; it is not compared.",
    source="DeepSpeed blog on Muon",
)
def muon(suite: Suite) -> Finding:
    kept = suite.program("claims.programs.optimizer_state:bytes_per_element", 1, width=256, layers=2)[0]
    compared = [
        Compared("AdamW, optimizer state per parameter", 8.0, kept["AdamW"], "bytes"),
        Compared("Muon, optimizer state per parameter", 4.0, kept["Muon"], "bytes"),
    ]
    because = (
        f"AdamW keeps {kept['AdamW']:.3f} and Muon {kept['Muon']:.3f} bytes per parameter. The peak is not compared."
    )
    return reproduced(compared, 0.01, because, in_shape=kept["Muon"] < kept["AdamW"])

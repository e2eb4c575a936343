"""Published scaling curves: the projection is fitted on the small world sizes and judged on the large ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analysis.projection.curve import ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.held_out import Projected, Projector
from analysis.projection.schedule import pass_s
from claims.claim import Compared, ComparisonPlot, Finding, PlottedCurve, Register, claim, reproduced
from claims.published.curves import MIB, all_reduced, fully_sharded, published_curve
from claims.suite import Suite

CLAIMS: Register = []

TOLERANCE = 0.05
EXAMPLES = {1: (317, 0.3), 2: (306, 1.0), 4: (305, 1.6), 8: (299, 2.6), 16: (294, 3.8)}
"""ResNet-50, by GPUs: examples per second and GPU with buckets of 1 MiB, and the per cent by which they are fewer than
with 25 MiB (75th percentile)."""
PLAYBOOK = {8: 40150.0, 16: 37610.0, 32: 35368.0, 64: 31112.0, 128: 26446.0, 256: 15700.0}
PLAYBOOK_BUCKETS = 40
FOUNDRY = {
    "7B": {128: 10475.0, 256: 10119.0, 512: 9670.0},
    "1B": {128: 44123.0, 512: 39837.0},
    "70B": {128: 1058.0, 512: 1007.0},
}
FOUNDRY_MODELS = {"7B": (6.66e9, 32, 6), "1B": (1.32e9, 24, 20), "70B": (64.9e9, 80, 8)}
"""Parameters, layers, and sequences of 2,048 per GPU and micro-batch, as the source has them for 8 to 64 GPUs."""
TITAN = {"bf16": (5762.0, 5605.0), "compile": (6667.0, 6514.0), "float8": (8532.0, 8380.0)}
"""Tokens per second and GPU of Llama-3.1-8B on 8 and on 128 H100."""
TITAN_TOKENS = 2 * 8192
TITAN_PARAMETERS, TITAN_LAYERS = 8.03e9, 32
H100 = Fabric(LinkTime(5e-6, 1 / 360e9), LinkTime(10e-6, 1 / 360e9), 8)
"""NVLink inside a host; eight adapters of 400 Gbit/s between hosts, of which a ring over all uses all."""
T5 = {8: 1.0, 256: 0.9, 512: 0.8}
T5_PARAMETERS, T5_LAYERS, T5_STEP_S = 11e9, 48, 5.0
HOROVOD = {
    "ResNet-101": (44.5e6, 7.8e9, 0.90),
    "Inception V3": (23.8e6, 5.7e9, 0.90),
    "VGG-16": (138.4e6, 15.5e9, 0.68),
}
"""Parameters, floating-point operations of a forward pass, and efficiency at 512 GPUs."""
CYCLES = 50
"""Times in a backward pass that Horovod fuses and reduces what is ready."""


def judged(label: str, projected: Projected, published: float, per_step: float, unit: str) -> Compared:
    """A published rate against the projected one; ``per_step`` is the work of a step."""
    low, high = per_step / projected.high_s, per_step / projected.low_s
    return Compared(f"{label}, {projected.ranks} GPUs", published, per_step / projected.step_s, unit, low, high)


def in_words(compared: Sequence[Compared]) -> str:
    """Such as ``at 128 GPUs +2.1 %``."""
    return ", ".join(f"{one.what}: {100 * one.difference:+.1f} %" for one in compared)


def plotted(name: str, published: Mapping[int, float], projected: Mapping[int, Compared], y: str) -> ComparisonPlot:
    """Published values by GPUs, and those that were projected."""
    line = PlottedCurve(name, list(map(float, published)), list(published.values()))
    compared = projected.values()
    ours = PlottedCurve(
        name,
        list(map(float, projected)),
        [one.ours for one in compared],
        [one.low or one.ours for one in compared],
        [one.high or one.ours for one in compared],
    )
    return ComparisonPlot("GPUs", y, [line], [ours])


@claim(
    CLAIMS,
    "P4",
    "ResNet-50 on 16 GPUs is 3.8 % slower with buckets of 1 MiB than with buckets of 25 MiB.",
    "The projection, fitted on 1 to 8 GPUs with both bucket sizes, and judged on 16. The buckets are torch's own "
    "partition of the model. Reproduced if both throughputs are within 1 % and the loss within 1 point. In shape if "
    "small buckets lose at most 10 %, and more at 16 GPUs than at 8.",
    source="PyTorch, benchmarks/distributed/ddp/README.md",
)
def bucket_size(suite: Suite) -> Finding:
    sizes = suite.program(
        "claims.programs.buckets:sizes_by_cap", 1, factory="workloads.resnet:ResNet", model=RESNET, caps_mib=[1, 25]
    )[0]
    small = {ranks: rate for ranks, (rate, _) in EXAMPLES.items()}
    large = {ranks: rate / (1 - loss / 100) for ranks, (rate, loss) in EXAMPLES.items()}
    projector = Projector(
        [
            published_curve(name, 0, {n: 32 / rate for n, rate in rates.items() if n <= 8}, all_reduced(sizes[cap]))
            for name, rates, cap in (("1 MiB", small, "1"), ("25 MiB", large, "25"))
        ]
    )
    compared = [judged("1 MiB", projector.at(0, 16), small[16], 32, "images/s")]
    compared.append(judged("25 MiB", projector.at(1, 16), large[16], 32, "images/s"))
    losses = {ranks: 1 - projector.at(1, ranks).step_s / projector.at(0, ranks).step_s for ranks in (8, 16)}
    because = (
        f"{in_words(compared)}. The projected loss is {100 * losses[16]:.1f} % (published 3.8 %), with "
        f"{len(sizes['1'])} and {len(sizes['25'])} buckets. The published loss grows with every doubling: a cost per "
        "collective that overlap does not hide, which the model lacks."
    )
    numbers = {f"projected loss, {ranks} GPUs": loss for ranks, loss in losses.items()}
    close = abs(losses[16] - 0.038) <= 0.01
    return reproduced(
        compared,
        0.01 if close else 0.0,
        because,
        in_shape=max(0.0, losses[8]) < losses[16] <= 0.1,
        numbers=numbers,
        plot=plotted("1 MiB", small, {16: compared[0]}, "images per second and GPU"),
    )


RESNET = {"depth": 50, "data": "imagenet"}


@claim(
    CLAIMS,
    "P6",
    "Tokens per second and GPU of data parallelism on 8 to 256 GPUs: 40,150 to 15,700, an efficiency of 39 %.",
    f"The projection, fitted on 8 to 64 GPUs, and judged on 128 and 256. Assumed: {PLAYBOOK_BUCKETS} buckets of 25 "
    "MiB that overlap with backward. Reproduced if both are within 5 %. In shape if the first is, and the 90 % band "
    "contains both.",
    source="Ultra-Scale Playbook (Hugging Face, 2025), dp_scaling",
)
def playbook(suite: Suite) -> Finding:
    del suite
    tokens = 16384.0
    calls = all_reduced([25 * MIB] * PLAYBOOK_BUCKETS)
    curve = published_curve("data parallelism", 0, {n: tokens / rate for n, rate in PLAYBOOK.items() if n <= 64}, calls)
    projector = Projector([curve])
    compared = [
        judged(curve.label, projector.at(0, ranks), PLAYBOOK[ranks], tokens, "tokens/s") for ranks in (128, 256)
    ]
    because = (
        f"{in_words(compared)}. The published rate lies within the band in "
        f"{sum(one.is_inside for one in compared)} of 2 cases. Nothing at up to 128 GPUs shows the drop at 256."
    )
    in_shape = abs(compared[0].difference) <= TOLERANCE and all(one.is_inside for one in compared)
    plot = plotted(curve.label, PLAYBOOK, dict(zip((128, 256), compared, strict=True)), "tokens per second and GPU")
    return reproduced(compared, TOLERANCE, because, in_shape=in_shape, plot=plot)


@claim(
    CLAIMS,
    "P7",
    "From 128 to 512 H100 a model of 1 billion parameters keeps 90.3 % of its throughput per GPU, one of 7 billion "
    "92.3 %, one of 70 billion 95.2 %.",
    "The projection, fitted on 7B at 128 and 256 GPUs and on 1B and 70B at 128, and judged on 512. Assumed: stage 3, "
    "a unit per layer, 16-bit gathers and reductions, and the micro-batches that the source has for fewer GPUs. "
    "Reproduced if all are within 5 % and the order of the losses is kept. In shape if the order is kept.",
    source="llm-foundry, scripts/train/benchmarking/README.md",
)
def foundry(suite: Suite) -> Finding:
    del suite
    curves: list[ScalingCurve] = []
    tokens = {}
    for name, rates in FOUNDRY.items():
        parameters, layers, sequences = FOUNDRY_MODELS[name]
        tokens[name] = 2048.0 * sequences
        steps = {ranks: tokens[name] / rate for ranks, rate in rates.items() if ranks < 512}
        curves.append(published_curve(name, 3, steps, fully_sharded(parameters, layers)))
    projector = Projector(curves)
    compared = [
        judged(name, projector.at(at, 512), FOUNDRY[name][512], tokens[name], "tokens/s")
        for at, name in enumerate(FOUNDRY)
    ]
    kept = {name: one.ours / FOUNDRY[name][128] for name, one in zip(FOUNDRY, compared, strict=True)}
    order = kept["1B"] < kept["7B"] < kept["70B"]
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in kept.items())
    because = f"{in_words(compared)}. Kept: {shares}. The source does not state the micro-batches of these sizes."
    numbers = {f"{name}, kept from 128 to 512 GPUs": share for name, share in kept.items()}
    plot = plotted("7B", FOUNDRY["7B"], {512: compared[0]}, "tokens per second and GPU")
    return reproduced(compared, TOLERANCE if order else 0.0, because, in_shape=order, numbers=numbers, plot=plot)


@claim(
    CLAIMS,
    "P8",
    "Llama-3.1-8B keeps 97.3, 97.7 and 98.2 % of its tokens per second and GPU from 8 to 128 H100, with bf16, compile "
    "and float8.",
    "The loss, by a projection from 8 GPUs to 128 over a described network. Assumed: two sequences of 8,192 per GPU, "
    "stage 3, a unit per layer, 16-bit gathers, fp32 reductions, 360 GB/s inside a host and between hosts, latencies "
    "of 5 and 10 µs. Reproduced if each is within 10 %. In shape if each is within 1 point.",
    source="torchtitan, benchmarks/llama3_h100_202412_torchtitan.md",
)
def titan(suite: Suite) -> Finding:
    del suite
    compared = []
    for name, (alone, many) in TITAN.items():
        calls = fully_sharded(TITAN_PARAMETERS, TITAN_LAYERS, "float32")
        curve = published_curve(name, 3, {8: TITAN_TOKENS / alone}, calls)
        projector = Projector([curve])
        at_8, at_128 = (projector.at(0, ranks, H100) for ranks in (8, 128))
        compared.append(Compared(f"{name}, loss from 8 to 128 GPUs", 1 - many / alone, 1 - at_8.step_s / at_128.step_s))
    losses = ", ".join(f"{100 * one.ours:.1f} instead of {100 * one.published:.1f} %" for one in compared)
    because = (
        f"The projected loss is {losses}. A projection from one world size knows links, and neither stragglers nor "
        "congestion."
    )
    in_shape = all(abs(one.ours - one.published) <= 0.01 for one in compared)
    return reproduced(compared, 0.1, because, in_shape=in_shape)


@claim(
    CLAIMS,
    "P9",
    "T5-11B on Ethernet, with a larger batch and a limit of gathers in flight, has an efficiency of 90 % on 256 GPUs "
    "and 80 % on 512.",
    f"The projection, fitted on 8 and 256 GPUs, and judged on 512. Assumed: stage 3, {T5_LAYERS} units, a step of "
    f"{T5_STEP_S:g} s. Reproduced if within 5 %. In shape if the efficiency falls. The 20 % without the limit is a "
    "memory fault of the allocator, which nothing here shows.",
    source="PyTorch and IBM blog, T5 on Ethernet",
)
def t5(suite: Suite) -> Finding:
    del suite
    steps = {ranks: T5_STEP_S / efficiency for ranks, efficiency in T5.items() if ranks < 512}
    projector = Projector([published_curve("T5-11B", 3, steps, fully_sharded(T5_PARAMETERS, T5_LAYERS))])
    compared = [judged("T5-11B", projector.at(0, 512), T5[512], T5_STEP_S, "")]
    plot = plotted("T5-11B", T5, {512: compared[0]}, "efficiency")
    return reproduced(compared, TOLERANCE, f"{in_words(compared)}.", in_shape=compared[0].ours < T5[256], plot=plot)


@claim(
    CLAIMS,
    "P15",
    "Horovod has an efficiency of 90 % at 512 GPUs for Inception V3 and ResNet-101, and of 68 % for VGG-16.",
    f"The overlap recurrence, with {CYCLES} equal buffers in a backward pass. The time of a byte over that of an "
    "operation is fitted to ResNet-101, and judged on the other two by their parameters and operations. Reproduced if "
    "both are within 5 %. In shape if VGG-16 loses most. Buffers of 64 MiB, which were tried first, give the wrong "
    "order. Fusion, up to +65 %, is not compared: its model and network "
    "are not stated.",
    source="Horovod README; Sergeev and Del Balso, 2018",
)
def horovod(suite: Suite) -> Finding:
    del suite
    cost = fitted_cost(HOROVOD["ResNet-101"])
    others = {name: row for name, row in HOROVOD.items() if name != "ResNet-101"}
    compared = [
        Compared(f"{name}, efficiency at 512 GPUs", row[2], efficiency(row[0], row[1], cost))
        for name, row in others.items()
    ]
    in_shape = compared[1].ours < min(compared[0].ours, HOROVOD["ResNet-101"][2])
    because = f"Fitted to ResNet-101's 90 %. {in_words(compared)}."
    return reproduced(compared, TOLERANCE, because, in_shape=in_shape, numbers={"operations per byte": cost})


def efficiency(parameters: float, operations: float, cost: float) -> float:
    """Of a step whose gradients of fp32 are all-reduced during backward; a byte costs ``cost`` operations."""
    backward = [2 * operations / CYCLES] * CYCLES
    reduces = [cost * 4 * parameters / CYCLES] * CYCLES
    return 3 * operations / (operations + pass_s(backward, [0.0] * CYCLES, reduces, overlap=True))


def fitted_cost(row: tuple[float, float, float]) -> float:
    """The cost of a byte at which this model has its published efficiency, by bisection."""
    low, high = 1e-3, 1e6
    for _ in range(100):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if efficiency(row[0], row[1], middle) > row[2] else (low, middle)
    return low

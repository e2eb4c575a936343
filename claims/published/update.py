"""Published times of an optimizer's step, and ours."""

from __future__ import annotations

from claims.claim import Compared, Finding, Register, claim, reproduced
from claims.suite import Suite

CLAIMS: Register = []

FASTER = 5.0
"""The lower end of the published 5 to 7 times."""


@claim(
    CLAIMS,
    "P16",
    "DeepSpeed's CPUAdam is 5 to 7 times as fast as torch's Adam on a CPU.",
    "Both, by size and threads, in turns: the least of several steps. torch's Adam as a loop over tensors, with "
    "foreach and fused. Reproduced if CPUAdam is 5 times as fast as the loop at the largest size, within 20 %. In "
    "shape if it is faster than the loop. Contradicted if it is slower, as DeepSpeedExamples#151 reports.",
    source="DeepSpeed tutorial on ZeRO-Offload",
    timed=True,
)
def cpu_adam(suite: Suite) -> Finding:
    sizes = [2**16, 2**20, 2**24]
    times = {
        threads: suite.program("claims.programs.cpu_adam:least_s", 1, sizes=sizes, threads=threads, steps=12)[0]
        for threads in (1, 2)
    }
    ratios = {
        f"{kind} over CPUAdam, {size} elements, {threads} threads": by_kind[kind] / by_kind["CPUAdam"]
        for threads, by_size in times.items()
        for size, by_kind in by_size.items()
        for kind in ("loop", "foreach", "fused")
    }
    loop, fused = (ratios[f"{kind} over CPUAdam, {sizes[-1]} elements, 2 threads"] for kind in ("loop", "fused"))
    compared = [Compared("speed, CPUAdam over torch's loop", FASTER, loop)]
    because = (
        f"With {sizes[-1]} elements and two threads CPUAdam is {loop:.2f} times as fast as torch's loop and "
        f"{fused:.2f} times as fast as its fused Adam."
    )
    return reproduced(compared, 0.2, because, in_shape=loop > 1, numbers=ratios)

"""A published scaling curve, fitted on its small world sizes and held against its large ones.

Tokens per second and GPU of data parallelism in the Ultra-Scale Playbook (Hugging Face, 2025, "dp_scaling"): a curve
whose efficiency falls off a cliff at 256 GPUs. The Playbook states no bucket count; 40 are assumed (PyTorch's 25 MiB
for a model of about a billion parameters), that buckets overlap with backward, and hosts of 8.
"""

from analysis.projection.curve import ScalingCurve, curves
from analysis.projection.held_out import Projector
from results.launches import Collective
from tests.fakes import cell, launch

TOKENS = {8: 40150, 16: 37610, 32: 35368, 64: 31112, 128: 26446, 256: 15700}
BUCKETS, BUCKET_ELEMENTS = 40, 25 * 2**20 // 4


def curve(largest: int) -> ScalingCurve:
    records = []
    for ranks, per_gpu in TOKENS.items():
        if ranks <= largest:
            record = cell(0, ranks, [launch(0, [[16384 / per_gpu] * 4])], verdicts=[])
            record.config["network"] = {"kind": "none"}
            hosts = {"hosts": [{"ranks": 8}] * (ranks // 8)} if ranks > 8 else {}
            record.resolved |= {"backend": "nccl", "engine": {"overlap": True}} | hosts
            record.collectives = [Collective("all_reduce", "float32", BUCKET_ELEMENTS, ranks, BUCKETS)]
            records.append(record)
    (only,), rejected = curves(records)
    assert not rejected
    return only


def test_128_gpus_are_predicted_from_64_within_a_twentieth():
    projected = Projector([curve(64)]).at(0, 128)
    assert abs(16384 / TOKENS[128] / projected.step_s - 1) < 0.05


def test_the_band_holds_the_knee_at_256():
    """Its middle does not: what happens between 128 and 256 GPUs is in no smaller measurement."""
    projected = Projector([curve(64)]).at(0, 256)
    assert projected.low_s < 16384 / TOKENS[256] < projected.high_s
    assert 16384 / TOKENS[256] / projected.step_s > 1.15

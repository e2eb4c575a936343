"""What is sent."""

from __future__ import annotations

from analysis.comm import sent_bytes
from bench.record import Record
from claims.claim import Finding, Register, claim, decided
from claims.suite import ExperimentError, Suite

CLAIMS: Register = []


def bytes_by_stage(suite: Suite) -> dict[int, float]:
    """Bytes that a rank of four sends in a step, over those of all parameters in fp32."""
    records = suite.sweep("engine=native", "stage=0,1,2,3", "gpus=4", "workload=mlp", "repeats=1", "steps=1")
    return {int(record.config["stage"]): sent_over_parameters(record) for record in records}


def sent_over_parameters(record: Record) -> float:
    sent = sent_bytes(record)
    if record.status != "ok" or sent is None or record.model is None:
        raise ExperimentError(f"{record.cell_id}: {record.status} {record.reason}")
    return sent / (4 * record.model.parameter_count)


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

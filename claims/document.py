"""docs/claims.md, from what was found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from claims.claim import VERDICTS, Claim
from claims.findings import Findings, Found
from claims.register import CLAIMS, TOPICS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "claims.md"
INTRODUCTION = Path(__file__).resolve().parent / "introduction.md"


def text(findings: Findings) -> str:
    """The whole document; claims that were not measured are missing from its tables and named at its end."""
    parts = [INTRODUCTION.read_text(encoding="utf-8").strip(), summary(findings)]
    for topic, claims in TOPICS.items():
        found = [(claim, findings.by_claim[claim.id]) for claim in claims if claim.id in findings.by_claim]
        if found:
            parts += [f"## {topic}", table(found)]
    missing = [id for id in CLAIMS if id not in findings.by_claim]
    if missing:
        parts.append(f"Not measured yet: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def summary(findings: Findings) -> str:
    counts = Counter(found.finding.verdict for found in findings.by_claim.values())
    counted = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    machine = ", ".join(f"{key} {value}" for key, value in findings.machine.items())
    return f"**{len(findings.by_claim)} claims: {counted}.** Measured with {machine}."


def table(found: list[tuple[Claim, Found]]) -> str:
    lines = ["| | it is said that | verdict | what was measured | how |", "| --- | --- | --- | --- | --- |"]
    for claim, entry in found:
        verdict = entry.finding.verdict
        cells = [claim.id, claim.said, f"**{verdict}**", entry.finding.because, claim.test]
        lines.append(f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |")
    return "\n".join(lines)

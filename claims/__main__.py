"""python -m claims: measures claims and published numbers of DDP and ZeRO and prints the findings."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.text import Text

from bench.checks import ConfigError
from bench.cli.one_process import check_alone
from claims import document, findings
from claims.claim import Claim
from claims.findings import FindingEntry, Findings, NotFindings
from claims.register import CLAIMS, TOPICS
from claims.suite import ROOT, ExperimentError, Suite
from results.store import dated, new_dated
from terminal.output import prepare_output
from terminal.tables import console

REFERENCE = ROOT / "results" / "reference" / "cpu-gloo" / "claims.json"
FILE = "claims.json"


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m claims",
        description="Measures common claims about DDP and ZeRO, and numbers that others published of them. Results go "
        "to FOLDER; an incomplete folder is resumed.",
        epilog="Exit code: 0; 1 if an experiment could not be carried out, or with --check a verdict changed; 2 if the "
        "request is not valid; 130 after Ctrl-C.",
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="such as A16 or P3; all without one")
    parser.add_argument(
        "--list", action="store_true", help="list all claims and published numbers, and measure nothing"
    )
    parser.add_argument("--folder", type=Path, help="default: results/runs/claims-DATE_TIME")
    parser.add_argument("--untimed", action="store_true", help="only those that do not depend on times")
    parser.add_argument("--published", action="store_true", help="only published numbers")
    parser.add_argument(
        "--check",
        type=Path,
        nargs="?",
        const=REFERENCE,
        metavar="FILE",
        help=f"show which verdicts differ from those of FILE (default: {REFERENCE.relative_to(ROOT)})",
    )
    parser.add_argument(
        "--document", action="store_true", help=f"write docs/claims/ from {REFERENCE.relative_to(ROOT)} and stop"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    prepare_output()
    options = parser().parse_args(arguments)
    out = console(soft_wrap=True)
    unknown = [id for id in options.claims if id not in CLAIMS]
    try:
        if unknown:
            raise NotFindings(f"no claim {', '.join(unknown)}; valid: {', '.join(CLAIMS)}")
        expected = findings.read(options.check) if options.check else None
        if options.document:
            document.write(findings.read(REFERENCE))
            return 0
    except NotFindings as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.list:
        show_all(out)
        return 0
    chosen = [claim for id, claim in CLAIMS.items() if not options.claims or id in options.claims]
    chosen = [claim for claim in chosen if not (options.untimed and claim.timed)]
    chosen = [claim for claim in chosen if claim.source or not options.published]
    try:
        check_alone("claims", sys.argv[1:])
        folder = options.folder or new_dated(Path("results/runs"), "claims-")
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failed = measure(chosen, folder, out)
    except (NotFindings, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: what is finished is in {folder / FILE}", file=sys.stderr)
        return 130
    out.print(f"findings {folder / FILE}")
    changed = check(chosen, findings.read(folder / FILE), expected, out) if expected else 0
    return 1 if failed or changed else 0


def show_all(out: Console) -> None:
    for topic, claims in TOPICS.items():
        out.print(Text(f"\n{topic}", style="bold"))
        for claim in claims:
            out.print(f"  {claim.id:4}{claim.statement}")


def measure(chosen: list[Claim], folder: Path, out: Console) -> int:
    """Measures claims one by one, keeping each finding as it comes; returns how many could not be carried out."""
    path = folder / FILE
    all_findings = findings.read(path) if path.exists() else Findings()
    all_findings.machine = machine()
    all_findings.write(path)
    suite, failed = Suite(folder), 0
    for at, claim in enumerate(chosen, 1):
        suite.commands = []
        out.print(Text(f"[{at}/{len(chosen)}] {claim.id}  {claim.statement}", style="bold"))
        try:
            finding = claim.find(suite)
        except ExperimentError as error:
            out.print(Text(f"    not carried out: {error}", style="red"))
            failed += 1
            continue
        all_findings.by_claim[claim.id] = FindingEntry(finding, list(dict.fromkeys(suite.commands)), dated())
        all_findings.write(path)
        show(all_findings.by_claim[claim.id], out)
    return failed


def show(entry: FindingEntry, out: Console) -> None:
    """A finding, its numbers and its commands."""
    finding = entry.finding
    out.print(Text(f"    {finding.verdict}: {finding.because}"))
    for one in finding.compared:
        both = f"published {one.published:.6g}, ours {one.ours:.6g} {one.unit}".rstrip()
        out.print(Text(f"      {one.what}: {both} ({100 * one.difference:+.1f} %)"))
    for name, value in finding.numbers.items():
        out.print(Text(f"      {name}: {value:.6g}" if isinstance(value, float) else f"      {name}: {value}"))
    for command in entry.commands:
        out.print(Text(f"      $ {command}", style="dim"))


def check(chosen: list[Claim], now: Findings, before: Findings, out: Console) -> int:
    """Prints which verdicts changed, and returns how many did."""
    counts = dict.fromkeys(("unchanged", "changed", "not carried out", "not measured before"), 0)
    for claim in chosen:
        entry, earlier = now.by_claim.get(claim.id), before.by_claim.get(claim.id)
        if entry is None:
            counts["not carried out"] += 1
        elif earlier is None:
            counts["not measured before"] += 1
        elif entry.finding.verdict == earlier.finding.verdict:
            counts["unchanged"] += 1
        else:
            counts["changed"] += 1
            out.print(Text(f"{claim.id}: {entry.finding.verdict}, was {earlier.finding.verdict}", style="red"))
            out.print(Text(f"    now: {entry.finding.because}"))
            out.print(Text(f"    was: {earlier.finding.because}"))
    out.print(f"verdicts: {', '.join(f'{count} {name}' for name, count in counts.items() if count)}")
    return counts["changed"]


def machine() -> dict[str, str]:
    """The machine and libraries that findings depend on."""
    return {"torch": version("torch"), "Python": platform.python_version(), "CPU ranks over": "gloo"}


if __name__ == "__main__":
    sys.exit(main())

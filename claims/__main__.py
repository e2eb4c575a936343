"""python -m claims: measures claims about DDP and ZeRO and prints the findings."""

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
        description="Measures what is said about DDP and ZeRO. Everything goes to FOLDER, and a folder that has some "
        "of it is resumed.",
        epilog="Exit code: 0; 1 if an experiment could not be carried out, or a verdict is not --against's; 2 if what "
        "was asked for is not valid; 130 after Ctrl-C.",
    )
    parser.add_argument("claims", nargs="*", metavar="CLAIM", help="such as A16; all without one")
    parser.add_argument("--list", action="store_true", help="name all claims and measure nothing")
    parser.add_argument("--folder", type=Path, help="default: results/runs/claims-DATE_TIME")
    parser.add_argument("--untimed", action="store_true", help="only claims that do not depend on times")
    parser.add_argument("--against", type=Path, metavar="FILE", help="findings whose verdicts these must have")
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
        expected = findings.read(options.against) if options.against else None
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
    try:
        check_alone("claims", sys.argv[1:])
        folder = options.folder or new_dated(Path("results/runs"), "claims-")
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        failed = measure(chosen, folder, expected, out)
    except (NotFindings, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted: what is finished is in {folder / FILE}", file=sys.stderr)
        return 130
    out.print(f"findings {folder / FILE}")
    return 1 if failed else 0


def show_all(out: Console) -> None:
    for topic, claims in TOPICS.items():
        out.print(Text(f"\n{topic}", style="bold"))
        for claim in claims:
            out.print(f"  {claim.id:4}{claim.statement}")


def measure(chosen: list[Claim], folder: Path, expected: Findings | None, out: Console) -> int:
    """Measures claims one by one, keeping each finding as it comes; returns how many went wrong."""
    path = folder / FILE
    all_findings = findings.read(path) if path.exists() else Findings()
    all_findings.machine = machine()
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
        out.print(Text(f"    {finding.verdict}: {finding.because}"))
        for name, value in finding.numbers.items():
            out.print(Text(f"      {name}: {value:.6g}" if isinstance(value, float) else f"      {name}: {value}"))
        for command in all_findings.by_claim[claim.id].commands:
            out.print(Text(f"      $ {command}", style="dim"))
        before = expected.by_claim.get(claim.id) if expected else None
        if before and before.finding.verdict != finding.verdict:
            out.print(Text(f"    was: {before.finding.verdict}: {before.finding.because}", style="red"))
            failed += 1
    return failed


def machine() -> dict[str, str]:
    """What findings may depend on."""
    return {"torch": version("torch"), "Python": platform.python_version(), "CPU ranks over": "gloo"}


if __name__ == "__main__":
    sys.exit(main())

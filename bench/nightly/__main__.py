"""What a machine does each night: is it fit, what is wrong, what got slower or fatter, and a summary to file an issue.

Every step is a command that a person can run by hand; this runs them in order, keeps what each printed, and goes on
after one that fails. Only an unfit machine ends the night early, since its numbers would mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.checks import ConfigError
from bench.cli.one_process import check_alone
from bench.cli.signals import outlive_terminal
from bench.nightly import preflight, summary
from bench.nightly.preflight import Finding
from bench.nightly.steps import JUDGED, TIME_GATE, Night, Outcome, earlier_sweep, judged_commit, resolved, run, steps
from results.settings import Tracking
from results.store import new_dated

HOME = Path("results/runs/nightly")
EXIT = {"ok": 0, "note": 0, "found": 1, "not run": 2}
"""The night's exit code is that of its worst step."""
INTERRUPTED = 130

DESCRIPTION = """\
Runs what a GPU runner runs each night, in this order; without a GPU the same in small:

  preflight    drivers, idle GPUs, disk, NCCL, versions against uv.lock       python -m bench.nightly.preflight
  sweep        experiment=nightly, with its report                            python -m bench experiment=nightly
  exact gate   what is counted, against the committed baseline                python -m analysis gate
  time gate    this code against --base, interleaved                          python -m bench.regress
  last night   the sweep against the last one here; for information           python -m analysis compare
  hot paths    the suite's own micro-benchmarks against the last ones here    pytest benchmarks
  mlflow       the sweep's records and report                                 python -m bench.tracking import

Each night has a folder HOME/DATE_TIME with sweep/, exact/, logs/ (what each step printed) and summary.md, which is
ready to be filed as an issue. In GitHub Actions the summary also goes to the job's page.
"""
EPILOG = """\
examples:
  python -m bench.nightly
  python -m bench.nightly --base v1.2 --home /data/nights --uri http://mlflow:5000

exit code: 0 if nothing is worse, 1 if something is wrong, slower or fatter, 2 if a step could not be run or the machine
is not fit, 130 if interrupted
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.nightly",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--base",
        metavar="REV",
        help="the code to time against; default: that of the last night whose time gate came to a verdict, else HEAD~1",
    )
    parser.add_argument("--home", type=Path, default=HOME, metavar="DIR", help="where nights are kept (%(default)s)")
    parser.add_argument(
        "--uri",
        default=os.environ.get("MLFLOW_TRACKING_URI") or None,
        help=f"MLflow store or server; default: $MLFLOW_TRACKING_URI, else {Tracking().uri}",
    )
    outlive_terminal()
    asked = parser.parse_args(arguments)
    home = asked.home.resolve()
    try:
        check_alone("bench.nightly", sys.argv[1:])
        folder = new_dated(home)
    except ConfigError as error:
        print(f"nightly: {error}", file=sys.stderr)
        return EXIT["not run"]
    except OSError as error:
        print(f"nightly: no folder in {home} ({error.strerror}); --home names another place", file=sys.stderr)
        return EXIT["not run"]
    return spend(folder, home, asked.base or judged_commit(home) or "HEAD~1", asked.uri)


def spend(folder: Path, home: Path, base: str, uri: str | None) -> int:
    """The whole night; the exit code. The summary is written however it ends."""
    findings: list[Finding] = []
    outcomes: list[Outcome] = []
    fit, interrupted, step = False, "", None
    try:
        findings = preflight.preflight(folder)
        fit = preflight.show(findings)
        night = Night(folder, home, base, len(preflight.gpus()), uri, earlier_sweep(home))
        commit = resolved("HEAD")
        for step in steps(night) if fit else []:
            log = folder / "logs" / f"{step.name.replace(' ', '-')}.log"
            outcomes.append(run(step, log))
            if step.name == TIME_GATE and outcomes[-1].verdict in ("ok", "found"):
                (folder / JUDGED).write_text(commit, encoding="utf-8")
    except KeyboardInterrupt:
        interrupted = step.name if step else "preflight"
    text = summary.write(folder, findings, outcomes, base=base, interrupted=interrupted)
    print(f"\n{text}\nsummary {folder / 'summary.md'}")
    if interrupted:
        return INTERRUPTED
    return max([EXIT[outcome.verdict] for outcome in outcomes], default=0) if fit else EXIT["not run"]


if __name__ == "__main__":
    sys.exit(main())

"""The newest saved run of the hot paths against the ones before it on the same machine.

    python -m pytest benchmarks --benchmark-only --benchmark-storage=FOLDER --benchmark-autosave
    python -m benchmarks.against_earlier FOLDER

A path is compared by its fastest round, with the median of the fastest rounds of up to five earlier runs, so that one
disturbed run spoils neither side. pytest-benchmark's own comparison knows one earlier run and ends in a traceback.

Exit code: 0 if nothing is slower, 1 if a path is, 2 if one that the run before has was not timed, or nothing could be
compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path

from rich.text import Text

from terminal.tables import bare, console

EARLIER = 5
SLOWER = {"process_time": 1.5, "perf_counter": 3.0}
"""By timer, the ratio from which a path counts as slower (docs/design/evidence.md)."""
Timed = tuple[str, str]
"""A hot path's name, and the timer that timed it."""


def fastest_s(path: Path) -> dict[Timed, float]:
    """The fastest round of each path in a saved run, in seconds."""
    saved = json.loads(path.read_text(encoding="utf-8"))
    return {(entry["name"], entry["options"]["timer"]): float(entry["stats"]["min"]) for entry in saved["benchmarks"]}


def runs(folder: Path) -> list[Path]:
    """Saved runs of the newest one's kind of machine, oldest first."""
    saved = sorted(folder.glob("*/*.json"), key=lambda path: path.name)
    return [path for path in saved if path.parent == saved[-1].parent]


def ratios(now: dict[Timed, float], earlier: list[dict[Timed, float]]) -> dict[Timed, float]:
    """How many times as long each path takes as it did; of those that both sides have."""
    path_ratios = {}
    for name, seconds in now.items():
        before = [run[name] for run in earlier[-EARLIER:] if name in run]
        if before:
            path_ratios[name] = seconds / statistics.median(before)
    return path_ratios


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.against_earlier", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="pytest-benchmark's storage")
    folder = parser.parse_args().folder
    try:
        saved = [fastest_s(path) for path in runs(folder)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{folder}: not readable as saved runs: {error}", file=sys.stderr)
        return 2
    if not saved:
        print(f"{folder}: no saved runs", file=sys.stderr)
        return 2
    path_ratios = ratios(saved[-1], saved[:-1])
    table = bare(("path", "fastest ms", "times as long as before", ""), ("path", ""))
    slower = 0
    for timed, ratio in sorted(path_ratios.items(), key=lambda entry: -entry[1]):
        name, timer = timed
        limit = SLOWER.get(timer, max(SLOWER.values()))
        slower += ratio >= limit
        word = f"slower: {limit:g} or more" if ratio >= limit else ""
        table.add_row(Text(name), f"{1e3 * saved[-1][timed]:.3g}", f"{ratio:.2f}", word, style="red" if word else "")
    out = console()
    out.print(table)
    earlier = min(EARLIER, len(saved) - 1)
    out.print(f"hot paths: {slower} of {len(path_ratios)} are slower than in {earlier} earlier runs")
    before = saved[-2] if earlier else {}
    if missing := sorted(name for name, _ in before.keys() - saved[-1].keys()):
        print(f"{folder}: not timed, as they were in the run before: {', '.join(missing)}", file=sys.stderr)
        return 2
    return int(slower > 0)


if __name__ == "__main__":
    sys.exit(main())

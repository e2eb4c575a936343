"""How long a sweep takes on two emulated nodes, from the command on the login node to its report.

    python -m benchmarks.cluster_sweep [--launches 6] [--steps 10]

16 configurations on two nodes with two ranks each: native and torch, stages 0 to 3, 2 and 4 ranks. Launches are short,
so the time is mostly the suite's own. The command submits a Slurm job, so the time includes the start of the job and of
the host servers, the health check and the report. The CPU time of all processes is printed too: other load on the
machine changes it less. Needs root, Debian's slurm-wlm and munge, and submitit.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from results.record import Record
from tests.slurm_lab import SlurmLab, obstacle

ROOT = Path(__file__).resolve().parents[1]
NODES = 2
SETTINGS = ["engine=native,torch", "stage=0,1,2,3", "gpus=2,4", "tracking=none"]
"""Two ranks run on the first node, four on both."""


def cpu_s(lab: SlurmLab) -> float:
    """CPU time so far of all processes on the emulated nodes, and of what this process started."""
    own = resource.getrusage(resource.RUSAGE_CHILDREN)
    used_s = own.ru_utime + own.ru_stime
    for name in ("ctl", *(f"n{number}" for number in range(1, NODES + 1))):
        first = psutil.Process(lab.pid(name))
        for process in (first, *first.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                used_s += times.user + times.system + times.children_user + times.children_system
    return used_s


def swept(lab: SlurmLab, folder: Path, launches: int, steps: int) -> tuple[float, list[Record]]:
    """Seconds that the command takes, and its records."""
    words = [sys.executable, "-m", "bench", "-m", *SETTINGS, f"repeats={launches}", f"steps={steps}"]
    words += [f"hydra.sweep.dir={folder}", "cluster=slurm", f"cluster.nodes={NODES}"]
    began = time.perf_counter()
    done = subprocess.run(lab.login(*words), cwd=ROOT, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"the sweep exited with status {done.returncode}")
    return seconds, [Record.read(path) for path in sorted((folder / "records").glob("*.json"))]


def summary(seconds: float, records: list[Record]) -> str:
    """All in a line."""
    statuses = ", ".join(f"{count} {status}" for status, count in Counter(record.status for record in records).items())
    launches = sum(len(record.launches) for record in records)
    return f"{len(records)} configurations ({statuses}) and {launches} timed launches in {seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster_sweep", description=__doc__.split("\n")[0])
    parser.add_argument("--launches", type=int, default=6, help="of each configuration")
    parser.add_argument("--steps", type=int, default=10, help="of each launch")
    arguments = parser.parse_args()
    if why_not := obstacle():
        sys.exit(why_not)
    with tempfile.TemporaryDirectory() as place, SlurmLab(Path(place, "lab")).running(NODES) as lab:
        before_s = cpu_s(lab)
        line = summary(*swept(lab, Path(place, "sweep"), arguments.launches, arguments.steps))
        used_s = cpu_s(lab) - before_s
        print(f"{line}; {used_s:.0f} s of CPU time, {used_s / (os.cpu_count() or 1):.0f} s per core")
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

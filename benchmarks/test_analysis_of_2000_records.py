"""A report on 2,000 records, from files to files: at most 20 s and 1 GB.

    python -m pytest benchmarks/test_analysis_of_2000_records.py --benchmark-only

Memory is the resident peak, and time the CPU time, of a process of its own that only writes the report.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import sweep

RECORDS = 2000
REPORT = """
import resource, sys
from analysis.__main__ import main
code = main(["report", sys.argv[1], "--out", sys.argv[2]])
used = resource.getrusage(resource.RUSAGE_SELF)
print("peak_kib", used.ru_maxrss, "cpu_s", used.ru_utime + used.ru_stime)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """125 settings of 16 cells, each with five launches of 20 steps on up to 8 ranks."""
    home = tmp_path_factory.mktemp("many")
    (home / "records").mkdir()
    at = 0
    for setting in range(RECORDS // 16):
        precision = ("fp32", "amp_bf16", "bf16", "bf16_master")[setting % 4]
        for record in sweep(seed=setting, precision=precision, bucket_mb=float(1 + setting // 4)):
            record.write(home / "records" / f"{at:04}.json")
            at += 1
    assert at == RECORDS
    return home


def test_a_report_on_2000_records(benchmark: Any, folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", REPORT, str(folder), str(tmp_path / "report")]

    def report() -> str:
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
        return done.stdout

    output = benchmark.pedantic(report, rounds=1)
    peak_kib, cpu_s = re.findall(r"peak_kib (\d+) cpu_s ([\d.]+)", output)[-1]
    benchmark.extra_info |= {"peak_bytes": int(peak_kib) * 1024, "cpu_s": float(cpu_s)}
    assert int(peak_kib) * 1024 < 10**9
    assert float(cpu_s) < 20, "it has one thread, so on a machine of its own it takes as long"

"""A machine without MLflow, DeepSpeed or nvidia-ml-py measures and reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.measure.machine.source import ROOT
from tests.integration.test_sweep import QUICK, command, records

ABSENT = ("mlflow", "deepspeed", "pynvml")


def test_a_sweep_needs_no_package_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({ABSENT}))\n")
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(ROOT)))}
    gone = subprocess.run([sys.executable, "-c", "import mlflow"], env=environment, capture_output=True, check=False)
    assert gone.returncode == 1
    folder = tmp_path / "sweep"
    sweep = command("-m", "engine=native,deepspeed", "gpus=1", *QUICK, "tracking=none", f"hydra.sweep.dir={folder}")
    done = subprocess.run(sweep, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert {record.status for record in records(folder).values()} == {"ok", "unavailable"}, done.stderr
    assert "MLflow" not in done.stderr
    assert (folder / "report.html").exists()

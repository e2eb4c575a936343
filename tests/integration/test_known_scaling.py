"""Scaling efficiency where it is known: set times, over links of a set rate, from a sweep to the reported figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.theory.calibrated import Calibrated
from tests.integration.test_network import no_lab
from tests.integration.test_sweep import records, run, summary

LAYERS = ("workload.layers=4", "workload.forward_s=0.01", "workload.backward_s=0.03", "workload.parameters_mib=0.5")


@pytest.mark.skipif(no_lab is not None, reason=no_lab or "")
@pytest.mark.parametrize("scaling", ["weak", "strong"])
def test_the_reported_efficiency_is_that_of_the_closed_form(scaling: str, tmp_path: Path) -> None:
    """Four buckets of 0.5 MiB take 42 ms each between two ranks at 100 Mbit/s, after backward."""
    folder = tmp_path / "sweep"
    done = run(
        tmp_path,
        *("-m", "workload=calibrated", "workload.per=sample", *LAYERS, "batch_size=4", f"scaling={scaling}"),
        *("engine=native", "gpus=1,2", "bucket_mb=0.5", "overlap=false", "optimizer=sgd"),
        *("network=lab", "network.rate=100mbit", "measure=time", "steps=3", "warmup=1", "repeats=2", "threads=1"),
        *("tracking=none", f"hydra.sweep.dir={folder}"),
    )
    assert done.returncode == 0, done.stderr
    (two,) = (record for record in records(folder).values() if record.config["gpus"] == 2)
    expected = Calibrated.of(two.config).efficiency(0.5 * 2**20 * 8 / 1e8, overlap=False)
    assert expected == pytest.approx({"weak": 0.64 / 0.808, "strong": 0.32 / 0.488}[scaling], rel=0.01)
    (found,) = (float(row["scaling_efficiency"]) for row in summary(folder) if row["gpus"] == "2")
    assert found == pytest.approx(expected, rel=0.08)

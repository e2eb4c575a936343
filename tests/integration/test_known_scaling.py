"""Scaling efficiency where it is known: set times, over links of a set rate, from a sweep to the reported figure."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from analysis.theory.calibrated import CalibratedStep
from tests.integration.test_network import no_lab
from tests.integration.test_sweep import records, run, summary
from tests.undisturbed import undisturbed

pytestmark = pytest.mark.alone

LAYERS = ("workload.layers=4", "workload.forward_s=0.01", "workload.backward_s=0.03", "workload.parameters_mib=0.5")


@pytest.mark.skipif(no_lab is not None, reason=no_lab or "")
@pytest.mark.parametrize("scaling", ["weak", pytest.param("strong", marks=pytest.mark.exhaustive)])
def test_the_reported_efficiency_is_that_of_the_closed_form(scaling: str, tmp_path: Path) -> None:
    """Four buckets of 0.5 MiB take 42 ms each between two ranks at 100 Mbit/s, after backward."""
    expected = {"weak": 0.64 / 0.808, "strong": 0.32 / 0.488}[scaling]

    def claim(efficiency: float) -> None:
        assert efficiency == pytest.approx(expected, rel=0.08)

    undisturbed(lambda: reported(scaling, expected, Path(tempfile.mkdtemp(dir=tmp_path))), claim)


def reported(scaling: str, expected: float, place: Path) -> float:
    """The efficiency of two ranks by a sweep's summary. What the closed form says depends on its record alone."""
    folder = place / "sweep"
    done = run(
        place,
        *("-m", "workload=calibrated", "workload.per=sample", *LAYERS, "batch_size=4", f"scaling={scaling}"),
        *("engine=native", "gpus=1,2", "bucket_mb=0.5", "overlap=false", "optimizer=sgd"),
        *("network=lab", "network.rate=100mbit", "measure=time", "steps=3", "warmup=1", "repeats=2", "threads=1"),
        *("tracking=none", f"hydra.sweep.dir={folder}"),
    )
    assert done.returncode == 0, done.stderr
    (two,) = (record for record in records(folder).values() if record.config["gpus"] == 2)
    assert CalibratedStep.of(two.config).efficiency(0.5 * 2**20 * 8 / 1e8, overlap=False) == pytest.approx(
        expected, rel=0.01
    )
    (efficiency,) = (float(row["scaling_efficiency"]) for row in summary(folder) if row["gpus"] == "2")
    return efficiency

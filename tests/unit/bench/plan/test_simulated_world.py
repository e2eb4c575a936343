"""A simulated cell: planned as one process, marked everywhere, compared with nothing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.table.frame import frame
from analysis.theory import predict_state
from bench.measure.verdicts import verdicts
from bench.plan.jobs import Jobs, reference_key
from bench.plan.resolve import plan
from results.launches import Launch
from results.model import Parameter
from results.record import Record
from results.settings import Config, Straggler
from results.verdicts import VERDICTS
from tests.conftest import CPU_ONLY
from tests.fakes import answers_of, cell, cnn_model, launch, sweep, write_report

TWO_GPUS = dataclasses.replace(CPU_ONLY, cuda_devices=2, nccl="2.30.7")


def test_a_world_that_is_not_there_is_one_process(make_config: Callable[..., Config], tmp_path: Path) -> None:
    (cell,) = plan([make_config(engine="native", backend="fake", gpus=64, threads=None)], CPU_ONLY, cores=2)
    assert (cell.status, cell.simulated, cell.threads, cell.oversubscribed(CPU_ONLY)) == (None, True, 2, False)
    job = Jobs(cell, tmp_path).timing()
    assert (job.world_size, job.spec.world_size, job.rank_batch, Jobs(cell, tmp_path).check().parity_steps) == (
        1,
        64,
        8,
        0,
    )
    resolved = cell.resolved()
    assert (resolved["world_size"], resolved["global_batch"], resolved["simulated"]) == (64, 512, True)
    assert "rank 0 of 64 alone" in resolved["outside_parity"]


def test_real_and_simulated_worlds_share_threads_but_no_reference(
    make_config: Callable[..., Config], tmp_path: Path
) -> None:
    configs = [
        make_config(engine="native", backend=backend, gpus=4, threads=None, measure={"parity_steps": 0})
        for backend in ("gloo", "fake")
    ]
    cells = plan(configs, CPU_ONLY, cores=8)
    assert [cell.threads for cell in cells] == [2, 2]
    assert len({reference_key(Jobs(cell, tmp_path).reference()) for cell in cells}) == 2


def test_on_a_gpu_a_simulated_world_takes_one(make_config: Callable[..., Config]) -> None:
    (cell,) = plan([make_config(engine="native", backend="fake", gpus=64)], TWO_GPUS, cores=8)
    assert (cell.device, cell.backend, cell.status, cell.oversubscribed(TWO_GPUS)) == ("cuda", "fake", None, False)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"straggler": Straggler(rank=1)}, "backend=fake has no straggler.rank=1"),
        ({"data_skew": "labels"}, "backend=fake has no data_skew=labels"),
        ({"engine": "parameter_server"}, "engine=parameter_server has no backend=fake"),
        ({"engine": "horovod"}, "engine=horovod has no backend=fake"),
        ({"engine": "pipeline"}, "engine=pipeline has no backend=fake"),
    ],
    ids=str,
)
def test_what_a_rank_alone_cannot_have_is_rejected(
    make_config: Callable[..., Config], settings: dict[str, Any], reason: str
) -> None:
    (cell,) = plan([make_config(**({"engine": "native", "backend": "fake", "gpus": 4} | settings))], CPU_ONLY, cores=2)
    assert (cell.status, cell.reason[: len(reason)]) == ("unsupported", reason)


def test_it_has_a_verdict_instead_of_those_on_parity_and_loss(make_config: Callable[..., Config]) -> None:
    config = dataclasses.asdict(make_config(backend="fake"))
    diverged = launch(0, [[0.01]], loss=math.nan)
    record = Record("id", "", config, {"simulated": True, "outside_parity": "alone"}, {}, launches=[diverged] * 6)
    assert verdicts(record, oversubscribed=False) == ["simulated"]
    record.resolved = {}
    assert verdicts(record, oversubscribed=False) == ["parity_unchecked", "loss_not_finite"]


def simulated(stage: int = 0, gpus: int = 64, launches: list[Launch] | None = None, **changes: Any) -> Record:
    """A cell as ``backend=fake`` leaves it, faster than any real one and, but for its world, asked for as they were."""
    record = cell(stage, gpus, launches or [launch(at, [[1e-4] * 4]) for at in range(6)], **changes)
    record.resolved |= {"simulated": True, "backend": "fake"}
    record.verdicts = ["simulated"]
    return record


@pytest.fixture
def mixed() -> list[Record]:
    return [*sweep(stages=(0, 3), worlds=(1, 2)), simulated(0), simulated(3)]


def shown(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["verdicts"].str.contains("simulated")]


def test_it_is_never_the_answer_and_has_no_efficiency_or_throughput(mixed: list[Record]) -> None:
    table, real = frame(mixed), frame(mixed[:-2])
    assert len(shown(table)) == 2
    assert shown(table)[["scaling_efficiency", "throughput_per_s", "final_loss"]].isna().all(axis=None)
    assert (shown(table)["step_time_s"] == 1e-4).all()
    assert [entry.paragraphs for entry in answers_of(mixed)] == [entry.paragraphs for entry in answers_of(mixed[:-2])]
    assert "64" not in str(answers_of(mixed))
    efficiency = table.loc[~table.index.isin(shown(table).index), "scaling_efficiency"]
    assert efficiency.tolist() == real["scaling_efficiency"].tolist()


def test_it_is_no_baseline_either() -> None:
    """Nor does a simulated world of one stand below real ones."""
    assert frame([simulated(0, gpus=1), cell(0, 2)]).set_index("gpus").loc[2, "scaling_baseline_gpus"] == 2


def test_reports_mark_it(mixed: list[Record], tmp_path: Path) -> None:
    write_report(mixed, tmp_path, drawn=False)
    page, words = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert page.count('data-name="warnings">simulated</td>') == 2
    assert VERDICTS["simulated"].meaning.split(".")[0] in words
    assert words.count("| simulated |") == 2


def test_the_prediction_is_rank_0s_and_not_that_of_the_rank_that_holds_most() -> None:
    """Stage 1 of torch deals 5, 4 and 4 rows: rank 1 of two has most."""
    parameters = [Parameter(str(at), [rows, 10], True, -1) for at, rows in enumerate((5, 4, 4))]
    real, alone = (make(1, 2, model=cnn_model(parameters=parameters)) for make in (cell, simulated))
    states = [predict_state(record) for record in (real, alone)]
    assert [state["optimizer"] for state in states if state] == [2 * 4 * 80 + 2 * 4, 2 * 4 * 50 + 4]

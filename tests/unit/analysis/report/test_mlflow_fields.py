"""What MLflow gets: names that tell cells apart, params and metrics that its compare view begins with."""

from __future__ import annotations

import re
from typing import Any

from analysis.report import mlflow_fields
from analysis.table.frame import frame
from results.record import Record
from tests.fakes import bare, cell, launch, sweep

ALLOWED = re.compile(r"[\w.: -]+")
"""What MLflow allows in a name, less the slash."""


def names(records: list[Record]) -> list[str]:
    table = frame(records)
    others = mlflow_fields.setting_names(table)
    return [mlflow_fields.cell_name(records[int(str(at))], dict(row.items()), others) for at, row in table.iterrows()]


def metrics(records: list[Record], which: int = 0) -> list[Any]:
    table = frame(records)
    row = dict(table.loc[which].items())
    return list(mlflow_fields.cell_metrics(records[which], row, mlflow_fields.metric_names(table)))


def test_a_name_has_the_settings_that_distinguish_cells_of_its_sweep() -> None:
    records = [cell(stage, 2, bucket_mb=bucket) for stage in (0, 1) for bucket in (None, 4)]
    assert sorted(names(records)) == [
        f"torch stage {stage}, 2 ranks, digits fp32, {bucket}"
        for stage in (0, 1)
        for bucket in ("bucket 4 MiB", "default bucket")
    ]
    assert names(records[:1]) == ["torch stage 0, 2 ranks, digits fp32"]


def test_every_name_is_one_that_mlflow_takes_and_has_no_slash() -> None:
    records = sweep(stages=(0, 1), worlds=(1, 2))
    every_metric = [*metrics(records), *mlflow_fields.sweep_metrics(records, frame(records))]
    every_name = {metric.key for metric in every_metric} | set(mlflow_fields.cell_params(records[0]))
    assert len(every_name) > 40
    assert [name for name in every_name if not ALLOWED.fullmatch(name)] == []


def test_the_compare_view_begins_with_efficiency_and_the_settings_that_differ() -> None:
    """It takes the first metric that differs, and the first three params."""
    records = sweep(stages=(0, 1), worlds=(1, 2))
    assert [metric.key for metric in metrics(records)[:5]] == list(mlflow_fields.FIRST[:5])
    params = [mlflow_fields.cell_params(record) for record in records]
    assert {name for name in params[0] if len({each[name] for each in params}) > 1} == {"stage", "gpus"}
    assert params[0].items() >= {"engine": "torch", "stage": "0", "gpus": "1", "bucket_mb": "default"}.items()
    assert mlflow_fields.common_params(params).keys() == params[0].keys() - {"stage", "gpus"}


def test_no_setting_is_a_metric_and_no_metric_is_zero_everywhere() -> None:
    names_of_metrics = {metric.key for metric in metrics(sweep(stages=(0, 3), worlds=(2,)))}
    assert names_of_metrics & {"stage", "gpus", "bucket_mb", "parameters"} == set()
    assert "params_bytes" in names_of_metrics and "master_bytes" not in names_of_metrics


def test_launches_and_steps_are_series_and_a_long_one_is_thinned() -> None:
    records = [cell(0, 1, [launch(at, [[0.01] * 4000]) for at in range(3)])]
    steps_by_name: dict[str, list[int]] = {}
    for metric in metrics(records):
        steps_by_name.setdefault(metric.key, []).append(metric.step)
    assert steps_by_name["by_launch_step_time_s"] == steps_by_name["by_launch_throughput_per_s"] == [0, 1, 2]
    assert steps_by_name["by_step_time_s"] == steps_by_name["by_step_loss"] == list(range(0, 4000, 4))


def test_the_parent_has_a_curve_over_the_world_size_for_each_setting_that_ended_well() -> None:
    records = [*sweep(stages=(0, 1), worlds=(1, 2)), bare("oom", "rank 0 was killed", 1, 4)]
    curves: dict[str, dict[int, float]] = {}
    for metric in mlflow_fields.sweep_metrics(records, frame(records)):
        curves.setdefault(metric.key, {})[metric.step] = metric.value
    assert {name for name in curves if name.startswith("peak")} == {"peak_bytes stage 0", "peak_bytes stage 1"}
    assert list(curves["scaling_efficiency stage 1"]) == [1, 2] and curves["scaling_efficiency stage 1"][1] == 1.0


def test_a_simulated_cell_is_marked_and_has_no_series_of_training() -> None:
    record = cell(0, 2)
    record.resolved["simulated"] = True
    assert mlflow_fields.cell_tags(record)["simulated"] == "true"
    assert set(mlflow_fields.series(record)) == {"by_launch_step_time_s", "by_step_time_s"}


def test_a_run_has_the_times_of_its_measurement() -> None:
    begin, end = mlflow_fields.moments([cell()])
    assert (begin % 1000, end - begin >= 0) == (0, True)
    assert abs(begin - 1772357400000) <= 24 * 3600 * 1000  # 2026-03-01, whatever the zone


def test_machines_that_differ_have_other_ids() -> None:
    first, second = cell(), cell()
    second.environment["cores"] = second.resolved["cores"] = 64
    ours, theirs = (mlflow_fields.machine_tags(record) for record in (first, second))
    assert ours["machine_id"] != theirs["machine_id"] and "64 cores" in theirs["machine"]
    assert mlflow_fields.machine_tags(cell())["machine_id"] == ours["machine_id"]

"""What a report calls fastest, and what it never compares."""

from __future__ import annotations

from pathlib import Path

from analysis.figures.catalogue import draw
from analysis.table.frame import frame, measure_all
from tests.fakes import answers_of, write_report
from tests.unit.analysis.advice.test_answer import steps, words


def test_what_diverged_is_never_the_answer_nor_drawn_among_times(tmp_path: Path) -> None:
    records = [steps(2, 0, 0.010, 0.011), steps(2, 1, 0.005, 0.0051, verdicts=["loss_not_finite"])]
    assert words(records) == (
        "12,218 samples/s (50 % CI [11,636, 12,800]), peak 6.74 MiB per rank (1.02 MiB of it model state). "
        "Of 1 other configuration none can be compared with it."
    )
    drawn = {plot.title: len(plot.drawings) for plot in draw(measure_all(records[1:]), frame(records[1:]), tmp_path)}
    assert set(drawn) == {"Model state per rank", "Peak memory per rank"}


def test_scaling_from_other_baselines_is_not_put_in_one_order() -> None:
    records = [
        *(steps(gpus, 3, at, at, verdicts=[]) for gpus, at in ((2, 0.010), (4, 0.014), (8, 0.0141))),
        *(steps(gpus, 1, at, at, verdicts=[]) for gpus, at in ((4, 0.010), (8, 0.011))),
    ]
    text = words(records, about="Scaling")
    assert "From 2 ranks to 8, stage 3 keeps 71 % (50 % CI [70.9, 70.9]) of its throughput per rank." in text
    assert "From 4 ranks to 8, stage 1 keeps 91 % (50 % CI [90.9, 90.9]) of its throughput per rank." in text
    assert "the most" not in text


def test_an_interval_that_is_missing_is_not_called_apart() -> None:
    text = words([steps(2, 0, 0.010, 0.011), steps(2, 1, 0.015, 0.016), steps(2, 2, 0.02)])
    assert "(paired ratio over rounds, 50 % (2 launches); 1 configuration with one launch not assessed)" in text


def test_what_goes_with_the_engine_but_is_other_work_is_another_task() -> None:
    records = [steps(2, 0, 0.010), steps(2, 0, 0.016, engine={"name": "native"}, batch_size=128)]
    assert [answer.task for answer in answers_of(records)] == ["batch_size 128", "batch_size 64"]


def test_machines_are_never_ranked_against_each_other(tmp_path: Path) -> None:
    records = [steps(2, 0, 0.010, 0.011), steps(2, 3, 0.001, 0.0011)]
    records[1].environment |= {"cpu_model": "AMD EPYC 9654", "cores": 192}
    records[1].resolved["cores"] = 192
    tasks = [answer.task for answer in answers_of(records)]
    assert tasks == ["AMD EPYC 9654, 192 cores", "Intel(R) Xeon(R) Processor @ 2.60GHz, 2 cores"]
    assert "AMD EPYC 9654, 192 cores" in write_report(records, tmp_path, drawn=False).markdown.read_text(
        encoding="utf-8"
    )

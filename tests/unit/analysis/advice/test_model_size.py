"""How large a model fits: cases that can be worked out by hand, and what must hold for all."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from analysis.__main__ import main
from analysis.advice.model_size import fits
from analysis.theory import predict_state
from results.memory import RankMemory, Search
from results.model import Parameter
from results.record import Record
from tests.fakes import cell, cnn_model, write_all

GIB = 2**30
COUNT = 2**20
"""Parameters of the measured model: 16 units of 65,536."""
MODEL = cnn_model(parameters=[Parameter(f"{unit}.weight", [256, 256], True, unit) for unit in range(16)])


def as_predicted(stage: int = 0, gpus: int = 1, *, activations: int = 0, working: int = 0, **changes: object) -> Record:
    """A cell that holds what theory says it does, and so many additional bytes."""
    record = cell(stage, gpus, model=MODEL, **changes)
    state = predict_state(record)
    assert state is not None
    peak = {**state, "activations": activations, "communication": working}
    ranks = [RankMemory(state, sum(state.values()), sum(peak.values()), peak_by_kind=peak)] * gpus
    record.memory = ranks
    return record


def bounds(record: Record, memory_bytes: float) -> tuple[float, float]:
    """In parameters measured."""
    size = fits(record, memory_bytes)
    assert size is not None and size.least is not None and size.most is not None
    return size.least / COUNT, size.most / COUNT


def test_sixteen_gib_hold_a_gi_of_parameters_with_adam_in_fp32() -> None:
    size = fits(as_predicted(), 16 * GIB)
    assert size is not None and size.parameters == COUNT
    assert size.bytes_per_parameter == pytest.approx(16, rel=1e-4)
    assert size.least == pytest.approx(GIB, rel=1e-4)
    assert size.most == pytest.approx(GIB, rel=1e-4)


@pytest.mark.parametrize(("optimizer", "size"), [("sgd", 12), ("rmsprop", 12), ("adamw", 16)])
@pytest.mark.parametrize(("precision", "share"), [("fp32", 1.0), ("bf16", 0.5)])
def test_the_optimizer_and_the_precision_say_how_many_bytes(
    optimizer: str, size: int, precision: str, share: float
) -> None:
    least, most = bounds(as_predicted(optimizer=optimizer, precision=precision), GIB)
    assert least == pytest.approx(GIB / COUNT / (share * size), rel=1e-4)
    assert most == pytest.approx(GIB / COUNT / (share * size), rel=1e-4)


@pytest.mark.parametrize("gpus", [2, 8, 64])
def test_stage_3_on_n_ranks_holds_n_times_as_many_in_more_layers(gpus: int) -> None:
    """Additional its shards a rank needs gathered units, which do not grow where there are only more of them."""
    size = fits(as_predicted(3, gpus), 16 * GIB)
    assert size is not None and size.most is not None and size.least is not None
    assert size.most == pytest.approx(gpus * GIB, rel=1e-3)
    assert size.bytes_per_parameter == pytest.approx(16 / gpus, rel=1e-3)
    whole = (
        (2 + 1 + 1) * 4 / 16
    )  # of 16 larger units: two gathered, the gradients of one, and these as they are reduced
    assert size.least == pytest.approx(16 * GIB / (16 / gpus + whole), rel=1e-3)


def test_activations_either_stay_or_grow_with_the_model() -> None:
    activations = 16 * COUNT  # as much as the state of the measured model
    least, most = bounds(as_predicted(activations=activations), 32 * 16 * COUNT)
    assert least == pytest.approx(16, rel=1e-3), "half of the memory"
    assert most == pytest.approx(31, rel=1e-3), "all but what the measured model's activations take"


def test_whole_parameters_of_stage_2_grow_with_the_model_however_it_grows() -> None:
    """fully_shard without resharding holds all parameters in backward: 16/64 + 4 bytes each."""
    _, most = bounds(as_predicted(2, 64), 16 * GIB)
    assert most * COUNT == pytest.approx(16 * GIB / 4.25, rel=1e-3)


ALWAYS = [("native", 0, "fp32"), ("torch", 1, "bf16_master"), ("native", 3, "amp_bf16"), ("torch", 3, "fp32")]


def test_autocast_copies_grow_with_the_weights_though_they_count_as_activations() -> None:
    _, plain = bounds(as_predicted(), 16 * GIB)
    _, cast = bounds(as_predicted(precision="amp_bf16", activations=2 * COUNT), 16 * GIB)
    assert cast == pytest.approx(plain * 16 / 18, rel=1e-3)


@pytest.mark.parametrize(
    ("engine", "stage", "precision"),
    [
        pytest.param(*one, marks=() if one in ALWAYS else pytest.mark.exhaustive)
        for one in itertools.product(("native", "torch"), range(4), ("fp32", "amp_bf16", "bf16_master"))
    ],
)
def test_the_bounds_are_in_order_and_grow_with_the_memory(engine: str, stage: int, precision: str) -> None:
    record = as_predicted(
        stage, 4, engine={"name": engine}, precision=precision, activations=5 * COUNT, working=COUNT, bucket_mb=1.0
    )
    sizes = [bounds(record, size * GIB) for size in (1, 2, 16, 80)]
    assert all(0 < least <= most for least, most in sizes)
    assert sizes == sorted(sizes) and len({most for _, most in sizes}) == 4


def test_what_the_driver_takes_is_not_there_for_a_model() -> None:
    record = as_predicted()
    taken = [replace(rank, beyond_allocator_bytes=GIB) for rank in record.memory]
    without = bounds(record, 15 * GIB)
    record.memory = taken
    assert bounds(record, 16 * GIB) == without


def test_a_model_that_does_not_fit_as_measured_has_no_bound() -> None:
    size = fits(as_predicted(), 15 * COUNT)
    assert size is not None and (size.least, size.most) == (None, None)


def test_there_is_no_answer_where_something_is_missing() -> None:
    unknown, unmeasured, searched, wrong = as_predicted(), cell(model=MODEL), as_predicted(), as_predicted()
    in_host = as_predicted(1, 2, offload="optimizer", engine__name="deepspeed", precision="bf16")
    unknown.config["engine"] = {"name": "other"}
    searched.search = Search(GIB, 1, 8)
    wrong.status = "parity_failed"
    assert [fits(record, GIB) for record in (unknown, unmeasured, searched, wrong, in_host)] == [None] * 5


def test_the_report_and_the_terminal_print_it_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_all([as_predicted(0), as_predicted(3, 2)], tmp_path)
    assert main(["report", str(folder), "--gpu-memory", "1GiB"]) == 0
    printed = capsys.readouterr().out
    for text in (printed, (folder / "report.md").read_text(), (folder / "report.html").read_text()):
        assert "67.1 M" in text and "64.0 ×" in text, "stage 0: 16 bytes per parameter, 64 times the measured model"
        assert "beyond 100 × measured" in text and "134 M" not in text, "stage 3: half as many bytes"
    assert "Largest model that fits 1.00 GiB" in (folder / "report.html").read_text()
    assert main(["report", str(folder)]) == 0
    assert "Largest model" not in (folder / "report.html").read_text()
    with pytest.raises(SystemExit):
        main(["report", str(folder), "--gpu-memory", "much"])
    assert "'much' is not a size; valid: such as 16GiB" in capsys.readouterr().err

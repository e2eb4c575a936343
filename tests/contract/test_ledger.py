"""The ledger of collectives against formulas: what engines call in a step, to the byte, whoever calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from analysis.metrics.traffic import sent_bytes
from analysis.theory import predict_sent
from bench.plan.cell import Cell
from results.launches import Collective
from results.record import Record
from tests.conftest import AsRecord, MakeCell, RunCheck

Ledger = list[Collective]
Counted = Callable[[Cell], tuple[Record, list[Ledger]]]

DEPTH, WIDTH = 3, 64
WEIGHT = WIDTH * WIDTH
MLP = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": DEPTH, "width": WIDTH, "bias": False}
"""No biases, and sizes that divide evenly: nothing is padded."""
FROZEN = {"name": "adapted", "factory": "tests.models:Odd", "kind": "adapted"}
"""Frozen layers and trained ones, both of sizes that divide evenly."""
QUICK = {"parity_steps": 0, "collectives": True}


@pytest.fixture
def counted(run_check: RunCheck, as_record: AsRecord) -> Counted:
    """A cell's record as a sweep would keep it, and the ledger of each rank."""

    def count(cell: Cell) -> tuple[Record, list[Ledger]]:
        if cell.status:
            pytest.skip(cell.reason)
        ranks = run_check(cell)
        record = as_record(cell, ranks)
        ledgers = [rank.collectives for rank in ranks if rank.collectives is not None]
        record.collectives, record.collectives_by_rank = ledgers[0], ledgers
        return record, ledgers

    return count


def amount(ledger: Ledger) -> dict[str, tuple[int, int]]:
    """Calls and elements in all, by kind."""
    amounts: dict[str, tuple[int, int]] = {}
    for line in ledger:
        count, elements = amounts.get(line.kind, (0, 0))
        amounts[line.kind] = count + line.count, elements + line.count * line.elements
    return amounts


@pytest.mark.parametrize(
    "settings", [{"gpus": 2}, {"gpus": 4}, {"gpus": 2, "accumulate": 2, "precision": "bf16"}], ids=str
)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_what_is_called_sends_what_was_predicted_to_the_byte(
    engine: str, stage: int, settings: dict[str, Any], make_cell: MakeCell, counted: Counted
) -> None:
    record, ledgers = counted(make_cell(engine=engine, stage=stage, workload=MLP, measure=QUICK, **settings))
    assert sent_bytes(record) == predict_sent(record)
    assert all(line.group_size == settings["gpus"] for ledger in ledgers for line in ledger)


def test_the_reducer_of_ddp_is_seen_though_it_calls_from_cpp(make_cell: MakeCell, counted: Counted) -> None:
    cell = make_cell(engine="torch", stage=0, gpus=2, workload=MLP, measure=QUICK)
    assert counted(cell)[1] == [[Collective("all_reduce", "float32", DEPTH * WEIGHT, 2, 1)]] * 2


def test_each_owner_broadcasts_at_torchs_stage_1(make_cell: MakeCell, counted: Counted) -> None:
    cell = make_cell(engine="torch", stage=1, gpus=2, workload=MLP, measure=QUICK)
    expected = {"all_reduce": (1, DEPTH * WEIGHT), "broadcast": (DEPTH, DEPTH * WEIGHT)}
    assert [amount(ledger) for ledger in counted(cell)[1]] == [expected] * 2


@pytest.mark.parametrize(("stage", "gathers"), [(2, 1), (3, 2)])
def test_fully_shard_gathers_each_unit_and_reduces_it_once(
    stage: int, gathers: int, make_cell: MakeCell, counted: Counted
) -> None:
    cell = make_cell(engine="torch", stage=stage, gpus=2, workload=MLP, measure=QUICK)
    assert counted(cell)[1][0] == [
        Collective("all_gather", "float32", WEIGHT, 2, gathers * DEPTH),
        Collective("reduce_scatter", "float32", WEIGHT, 2, DEPTH),
    ]


def test_native_sends_each_peer_its_shard(make_cell: MakeCell, counted: Counted) -> None:
    """Among four ranks: a shard of gradients to each of three peers, and again one of parameters."""
    cell = make_cell(engine="native", stage=1, gpus=4, workload=MLP, measure=QUICK)
    shard = DEPTH * WEIGHT // 4
    expected = [Collective("recv", "float32", shard, 4, 6), Collective("send", "float32", shard, 4, 6)]
    assert counted(cell)[1] == [expected] * 4


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("engine", ["native", "torch"])
def test_micro_batches_before_the_last_call_nothing_at_stages_that_keep_gradients(
    engine: str, stage: int, make_cell: MakeCell, counted: Counted
) -> None:
    def ledgers(accumulate: int) -> list[Ledger]:
        cell = make_cell(
            engine=engine, stage=stage, gpus=2, workload=MLP, accumulate=accumulate, batch_size=8, measure=QUICK
        )
        return counted(cell)[1]

    assert ledgers(4) == ledgers(1)


@pytest.mark.parametrize(
    ("engine", "stage", "norms"), [("native", 0, [1]), ("native", 3, [1]), ("torch", 0, []), ("torch", 3, [DEPTH])]
)
def test_clipping_has_a_line_of_its_own(
    engine: str, stage: int, norms: list[int], make_cell: MakeCell, counted: Counted
) -> None:
    """DDP needs none, since each rank has all gradients; fully_shard reduces a norm of each parameter (DTensor)."""
    cell = make_cell(engine=engine, stage=stage, gpus=2, workload=MLP, clip_norm=1.0, measure=QUICK)
    small = [line for line in counted(cell)[1][0] if line.elements < WEIGHT // 2]
    assert [(line.kind, line.elements, line.count) for line in small] == [("all_reduce", size, 1) for size in norms]


def test_buffers_of_batchnorm_are_lines_of_their_own(make_cell: MakeCell, counted: Counted) -> None:
    workload = {"name": "normalised", "factory": "tests.models:Odd", "kind": "normalised"}
    cell = make_cell(engine="torch", stage=0, gpus=2, workload=workload, measure=QUICK)
    record, ledgers = counted(cell)
    assert record.model is not None
    broadcast = [line for line in ledgers[0] if line.kind == "broadcast"]
    assert sum(line.total_bytes for line in broadcast) == record.model.buffer_bytes > 0


@pytest.mark.parametrize(
    "settings", [{}, {"accumulate": 2}, {"workload": FROZEN}, {"workload": "digits", "gpus": 3}], ids=str
)
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_deepspeed_sends_what_was_predicted_in_addition_to_its_check_for_overflow(
    stage: int, settings: dict[str, Any], make_cell: MakeCell, counted: Counted
) -> None:
    """At stage 3 no more: what forward gathered last, backward finds there. Three ranks pad what they share."""
    cell = make_cell(engine="deepspeed", stage=stage, **({"gpus": 2, "workload": MLP, "measure": QUICK} | settings))
    record, ledgers = counted(cell)
    record.collectives_by_rank = [[line for line in ledger if line.elements > 1] for ledger in ledgers]
    sent, predicted = sent_bytes(record), predict_sent(record)
    assert sent is not None and predicted is not None
    assert 0.5 * predicted < sent <= predicted if stage == 3 else sent == predicted, ledgers[0]


def test_model_state_is_the_same_whether_collectives_are_counted_or_not(
    make_cell: MakeCell, run_check: RunCheck
) -> None:
    def memory(*, collectives: bool) -> list[dict[str, Any]]:
        measure = {"parity_steps": 2, "memory": True, "collectives": collectives}
        ranks = run_check(make_cell(engine="native", stage=1, gpus=2, workload=MLP, measure=measure))
        assert all((rank.collectives is not None) == collectives for rank in ranks)
        return [rank.memory.state_bytes for rank in ranks]

    assert memory(collectives=True) == memory(collectives=False)


def test_messages_past_torch_are_owned_up_to(make_cell: MakeCell, counted: Counted) -> None:
    record, ledgers = counted(make_cell(engine="parameter_server", gpus=2, workload=MLP, measure=QUICK))
    assert "group of their own" in record.resolved["uncounted"]
    assert ledgers == [[], []]
    assert sent_bytes(record) is None


def test_an_all_reduce_too_many_is_seen(make_cell: MakeCell, counted: Counted) -> None:
    def ledger(fault: str) -> Ledger:
        engine = {"name": "wrong", "package": "tests.wrong_engine", "fault": fault}
        return counted(make_cell(engine=engine, gpus=2, workload=MLP, measure=QUICK))[1][0]

    assert ledger("none") == [Collective("all_reduce", "float32", WEIGHT, 2, DEPTH)]
    assert ledger("extra_all_reduce") == [Collective("all_reduce", "float32", WEIGHT, 2, DEPTH + 1)]

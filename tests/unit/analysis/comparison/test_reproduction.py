"""Whether a cell came out the same: what decides, what is only said, and what differs around it."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from typing import Any

import pytest

from analysis.comparison import reproduction
from results.launches import Collective
from results.memory import RankMemory
from results.parity import Parity
from results.record import Record
from results.source import Source
from tests.fakes import cell, launch

SOURCE = Source("aa" * 32, "bb" * 32, "0123456789abcdef")


def ran(*, deterministic: bool = True) -> Record:
    """A cell of two ranks and three launches, all of whose figures are known."""
    launches = [launch(at, [[0.010 + at / 1000] * 4, [0.011 + at / 1000] * 4]) for at in range(3)]
    record = cell(2, 2, launches, deterministic=deterministic, source=SOURCE)
    record.parity = Parity(2, 1e-7, 1e-6, 1e-3, [2.5, 2.25], [2.5, 2.25], weights_digest="cd" * 32)
    record.memory = [RankMemory({"params": 400, "grads": 400}, 500, 1100, step_peaks_bytes=[1000, 1100, 1200])] * 2
    record.collectives = [Collective("all_reduce", "float32", 1024, 2, 3)]
    return record


def verdicts(before: Record, after: Record) -> dict[str, str]:
    return {line.figure: line.verdict for line in reproduction.lines(before, after)}


def test_a_cell_that_comes_out_the_same_is_reproduced() -> None:
    before = ran()
    lines = reproduction.lines(before, copy.deepcopy(before))
    assert reproduction.failed(lines) == []
    assert {line.verdict for line in lines if line.decides} == {"equal"}
    assert {line.verdict for line in lines if not line.decides} == {"inside"}
    assert {line.figure for line in lines if line.decides} == {
        *("status", "data digest", "parameters", "losses of the parity steps", "digest of the weights"),
        *("losses of 3 timed launches", "model state", "collectives of a step", "bytes sent in a step"),
    }


def tampered_loss(record: Record) -> None:
    assert record.parity
    record.parity = dataclasses.replace(record.parity, losses=[2.5, math.nextafter(2.25, 3)])


def tampered_digest(record: Record) -> None:
    assert record.parity
    record.parity = dataclasses.replace(record.parity, weights_digest="ce" + "cd" * 31)


def tampered_timed_loss(record: Record) -> None:
    losses = record.launches[2].ranks[1].losses
    losses[3] = math.nextafter(losses[3], 0)


def other_data(record: Record) -> None:
    assert record.model
    record.model = dataclasses.replace(record.model, data_digest="00" * 32)


def other_state(record: Record) -> None:
    record.memory = [record.memory[0], dataclasses.replace(record.memory[1], state_bytes={"params": 404, "grads": 396})]


def another_call(record: Record) -> None:
    record.collectives = [*(record.collectives or []), Collective("all_reduce", "float32", 1, 2, 1)]


def failed_parity(record: Record) -> None:
    record.status = "parity_failed"


@pytest.mark.parametrize(
    ("change", "figures"),
    [
        (tampered_loss, ["losses of the parity steps"]),
        (tampered_digest, ["digest of the weights"]),
        (tampered_timed_loss, ["losses of 3 timed launches"]),
        (other_data, ["data digest"]),
        (other_state, ["model state"]),
        (another_call, ["collectives of a step", "bytes sent in a step"]),
        (failed_parity, ["status"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_one_bit_or_byte_or_call_off_is_named(change: Any, figures: list[str]) -> None:
    before, after = ran(), ran()
    change(after)
    assert reproduction.failed(reproduction.lines(before, after)) == figures
    assert reproduction.summary(before, after).startswith(f"Not reproduced: {', '.join(figures)} differ")
    assert not reproduction.document(before, after)["reproduced"]


def test_without_deterministic_bits_are_reported_and_decide_nothing() -> None:
    before, after = ran(deterministic=False), ran(deterministic=False)
    for change in (tampered_loss, tampered_digest, tampered_timed_loss):
        change(after)
    verdict_of = verdicts(before, after)
    assert [name for name, verdict in verdict_of.items() if verdict == "differs"] == [
        *("losses of the parity steps", "digest of the weights", "losses of 3 timed launches")
    ]
    assert reproduction.failed(reproduction.lines(before, after)) == []


def test_a_loss_that_is_no_number_equals_itself() -> None:
    before, after = ran(), ran()
    for record in (before, after):
        assert record.parity
        record.parity = dataclasses.replace(record.parity, losses=[2.5, math.nan])
    assert verdicts(before, after)["losses of the parity steps"] == "equal"


def test_times_and_peaks_lie_inside_or_outside_of_the_old_range_and_decide_nothing() -> None:
    before, after = ran(), ran()
    after.launches = [launch(at, [[0.020] * 4, [0.021] * 4]) for at in range(3)]
    after.memory = [dataclasses.replace(rank, step_peaks_bytes=[1300] * 3) for rank in after.memory]
    verdict_of = verdicts(before, after)
    outside = ["step time (ms)", "throughput (per s)", "peak (MiB)"]
    assert [name for name, verdict in verdict_of.items() if verdict == "outside"] == outside
    assert verdict_of["final loss"] == "inside"
    assert reproduction.failed(reproduction.lines(before, after)) == []
    assert reproduction.summary(before, after).endswith(f"Outside of the record's range: {', '.join(outside)}.")


def test_one_launch_has_no_interval_to_lie_in() -> None:
    before, after = ran(), ran()
    before.launches = before.launches[:1]
    assert verdicts(before, after)["step time (ms)"] == "not judged"
    assert verdicts(before, after)["losses of 1 timed launch"] == "equal"


def test_what_differs_around_the_cell_is_listed_with_the_important_first() -> None:
    before, after = ran(), ran()
    after.environment = after.environment | {
        **{"kernel": "Linux 7", "torch": "2.16.0", "cpu_capability": "AVX2", "time": "later", "load_average": [9.0]},
        "variables": {"OMP_NUM_THREADS": "1", "NCCL_ALGO": "Ring"},
        "packages": before.environment["packages"] | {"numpy": "3.0"},
    }
    after.resolved = after.resolved | {"threads": 2}
    after.source = dataclasses.replace(SOURCE, digest="ff" * 32, patch="x", patch_bytes=1)
    assert [entry.name for entry in reproduction.changed(before, after)] == [
        *("code", "resolved.threads", "torch", "cpu_capability", "packages.numpy", "variables.NCCL_ALGO", "kernel")
    ]
    assert reproduction.changed(before, before) == []


def test_the_text_of_a_record_cannot_leave_its_cell_of_the_table() -> None:
    before, after = ran(), ran()
    after.environment = after.environment | {"kernel": "a | b\n# <script>"}
    text = reproduction.markdown(before, after)
    assert "<script>" not in text and "\n# &lt;" not in text
    assert json.loads(json.dumps(reproduction.document(before, after)))["reproduced"] is True


def test_another_distribution_over_hosts_is_no_reproduction() -> None:
    before, after, elsewhere = ran(), ran(), ran()
    before.resolved["hosts"] = [{"name": "n1", "ranks": 1}, {"name": "n2", "ranks": 1}]
    elsewhere.resolved["hosts"] = [{"name": "a", "ranks": 1}, {"name": "b", "ranks": 1}]
    assert reproduction.failed(reproduction.lines(before, after)) == ["ranks by host"]
    (line,) = [line for line in reproduction.lines(before, elsewhere) if line.figure == "ranks by host"]
    assert (line.then, line.now, line.verdict) == ("n1: 1, n2: 1", "a: 1, b: 1", "equal")

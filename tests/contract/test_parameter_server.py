"""Parameter servers: gradients applied once, staleness bounded, servers end with their workers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bench.checks import ConfigError
from bench.engines.spec import EngineUnsupported
from bench.job import Job, LaunchResult
from bench.launch.launcher import Launcher
from bench.plan.cell import Cell
from results.settings import Straggler
from tests.conftest import MakeCell, RunCheck, assert_parity, group
from tests.undisturbed import undisturbed

SMALL = {"name": "mlp", "factory": "workloads.mlp:MLP", "depth": 2, "width": 64}
SMALL_BYTES = 4 * 2 * (64 * 64 + 64)
"""Of the small model's parameters, each of which is a multiple of 64 bytes: nothing is padded."""
STEPS, WARMUP = 12, 1
SLOW = Straggler(rank=1, factor=200.0)
"""Tens of milliseconds a step, where the others take about one, so that counts do not hang on this machine's load."""

MakeServed = Callable[..., Cell]
Serve = Callable[[Cell], LaunchResult]


@pytest.fixture
def served_cell(make_cell: MakeCell) -> MakeServed:
    """A cell of this engine with options of its own."""

    def make(mode: str = "sync", staleness: int | None = None, servers: int = 1, **settings: Any) -> Cell:
        options = {"mode": mode, "staleness": staleness, "servers": servers}
        return make_cell(engine=group("engine", "parameter_server") | options, **settings)

    return make


@pytest.fixture
def serve(launcher: Launcher, timing_job: Callable[..., Job]) -> Serve:
    """Times a cell and returns the launch, servers' counts included."""

    def run(cell: Cell) -> LaunchResult:
        assert cell.status is None, cell.reason
        result = launcher.launch(timing_job(cell, steps=STEPS, warmup=WARMUP))
        assert result.status == "ok", f"{result.status}: {result.reason}\n{result.ends}"
        return result

    return run


@pytest.mark.parametrize("servers", [2, 3])
@pytest.mark.parametrize(
    "settings", [{}, {"precision": "amp_bf16", "accumulate": 2, "optimizer": "sgd", "lr": 0.05}], ids=str
)
def test_several_servers_equal_a_single_process(
    servers: int, settings: dict[str, Any], served_cell: MakeServed, run_check: RunCheck
) -> None:
    assert_parity(run_check(served_cell(servers=servers, gpus=3, **settings)))


@pytest.mark.parametrize(("mode", "staleness"), [("async", None), ("bounded", 0)])
def test_a_lone_worker_equals_a_single_process_in_any_mode(
    mode: str, staleness: int | None, served_cell: MakeServed, run_check: RunCheck
) -> None:
    assert_parity(run_check(served_cell(mode, staleness, gpus=1)))


def test_modes_without_a_common_step_are_outside_parity_and_asynchronous(served_cell: MakeServed) -> None:
    sync, stale = served_cell("sync", gpus=2), served_cell("async", gpus=2)
    assert (sync.outside_parity(), sync.traits().synchronous) == ("", True)
    assert stale.outside_parity() and not stale.traits().synchronous


def test_every_gradient_is_applied_exactly_once(served_cell: MakeServed, serve: Serve) -> None:
    pushed = 3 * (STEPS + WARMUP)
    for mode, staleness, updates in (("sync", None, pushed // 3), ("async", None, pushed), ("bounded", 1, pushed)):
        servers = serve(served_cell(mode, staleness, servers=2, gpus=3, workload=SMALL)).servers
        assert [server.server for server in servers] == [0, 1]
        for server in servers:
            counted = server.gradients_received, server.gradients_applied, server.updates
            assert counted == (pushed, pushed, updates), mode
            assert sum(server.delays.values()) == pushed


def test_in_sync_mode_no_gradient_is_late(served_cell: MakeServed, serve: Serve) -> None:
    server = serve(served_cell("sync", gpus=3, workload=SMALL, straggler=SLOW)).servers[0]
    assert server.delays == {"0": 3 * (STEPS + WARMUP)}
    assert server.max_clock_gap == 0


@pytest.mark.alone
@pytest.mark.parametrize("staleness", [0, 2])
def test_with_a_straggler_the_lead_and_the_delay_keep_to_their_bounds(
    staleness: int, served_cell: MakeServed, serve: Serve
) -> None:
    """A pull lacks at most s of another's gradients, and the other stops s ahead: a delay of 2s + 1 for each."""
    server = serve(served_cell("bounded", staleness, gpus=3, workload=SMALL, straggler=SLOW)).servers[0]
    assert server.max_clock_gap == staleness
    assert max(map(int, server.delays)) <= (2 * staleness + 1) * 2


@pytest.mark.alone
def test_without_a_bound_the_lead_and_the_delay_with_a_straggler_grow(served_cell: MakeServed, serve: Serve) -> None:
    server = serve(served_cell("async", gpus=2, workload=SMALL, straggler=SLOW)).servers[0]
    assert server.max_clock_gap > 4
    assert max(map(int, server.delays)) > 4


@pytest.mark.alone
def test_others_wait_for_a_straggler_in_sync_mode_and_not_in_async_mode(served_cell: MakeServed, serve: Serve) -> None:
    """By the time the fast worker has taken all its steps, how many has the straggler taken?"""

    def done_by_the_straggler(mode: str) -> int:
        cell = served_cell(mode, gpus=2, workload=SMALL, straggler=SLOW)
        fast, slow = (rank.samples for rank in serve(cell).ranks)
        ended = np.cumsum(np.add(slow.forward_backward_s, slow.optimizer_s))
        return int(np.sum(ended <= fast.wall_s))

    assert done_by_the_straggler("sync") >= STEPS - 1
    assert done_by_the_straggler("async") <= STEPS // 2


def test_a_server_moves_what_all_workers_move(served_cell: MakeServed, serve: Serve) -> None:
    """One server carries N times a worker's bytes; several share them."""
    per_worker = (STEPS + WARMUP) * SMALL_BYTES
    for count in (1, 2):
        servers = serve(served_cell(servers=count, gpus=3, workload=SMALL)).servers
        assert [(server.bytes_in, server.bytes_out) for server in servers] == [
            (3 * per_worker // count, 3 * per_worker // count)
        ] * count


def test_the_optimizer_is_the_servers(served_cell: MakeServed, serve: Serve) -> None:
    """fp32 Adam: 4 + 8 bytes a parameter over all servers, and in sync mode a place for each worker's gradient."""
    servers = serve(served_cell(servers=2, gpus=3, workload=SMALL)).servers
    state_bytes = {
        kind: sum(server.state_bytes[kind] for server in servers) for kind in ("params", "grads", "optimizer")
    }
    counters = 2 * 4  # Adam's step, one a server
    assert state_bytes == {"params": SMALL_BYTES, "grads": 3 * SMALL_BYTES, "optimizer": 2 * SMALL_BYTES + counters}


def test_a_sync_run_gives_the_same_bits_whoever_comes_first(served_cell: MakeServed, run_check: RunCheck) -> None:
    cell = served_cell(gpus=4, workload=SMALL)
    digests = {run_check(cell)[0].parity.weights_digest for _ in range(3)}
    assert len(digests) == 1


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_worker_that_dies_leaves_no_server_behind(
    mode: str, served_cell: MakeServed, launcher: Launcher, timing_job: Callable[..., Job]
) -> None:
    faulty = {"name": "faulty", "factory": "tests.faults:Faulty", "how": "kill", "rank": 1}

    def took_s() -> float:
        started = time.monotonic()
        result = launcher.launch(timing_job(served_cell(mode, servers=2, gpus=2, workload=faulty)))
        ended = time.monotonic()
        assert (result.status, result.reason) == ("failed", "rank 1: killed by signal 9 (SIGKILL)")
        assert len(result.ends) == 4
        return ended - started

    def claim(took_s: float) -> None:
        assert took_s < 30  # of a timeout of much more

    undisturbed(took_s, claim)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"mode": "stale"}, "engine.mode=stale is not valid; valid: sync, async, bounded"),
        ({"servers": 0}, "engine.servers=0 is not valid; valid: a whole number of at least 1"),
        ({"mode": "bounded"}, "engine.staleness=null is not valid; valid: a whole number of at least 0"),
    ],
    ids=str,
)
def test_an_option_that_is_no_value_of_it_ends_before_the_sweep(
    settings: dict[str, Any], error: str, served_cell: MakeServed
) -> None:
    with pytest.raises(ConfigError, match=error):
        served_cell(gpus=2, **settings)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"mode": "async", "staleness": 2}, "engine.mode=async has no engine.staleness=2"),
        ({"servers": 2, "clip_norm": 1.0}, "engine.servers=2 has no clip_norm=1: no server sees the global norm"),
        ({"overlap": True}, "no overlap=true: it pushes after backward"),
        ({"stage": 1}, "no stage=1: a parameter server shards nothing among workers"),
        ({"bucket_mb": 1.0}, "no bucket_mb=1.0"),
        ({"local_steps": 2}, "no local_steps=2"),
        ({"backend": "nccl"}, "backend=nccl"),
        ({"precision": "amp_fp16"}, "no precision=amp_fp16"),
    ],
    ids=str,
)
def test_what_it_cannot_honour_is_rejected_by_its_name(
    settings: dict[str, Any], reason: str, served_cell: MakeServed
) -> None:
    cell = served_cell(gpus=2, **settings)
    assert cell.status == "unsupported"
    assert reason in cell.reason


def test_parameters_that_are_not_fp32_are_rejected_by_its_name() -> None:
    import torch
    from torch import nn

    from bench.engines.parameter_server.worker import reject_parameters

    mixed = {"first": nn.Parameter(torch.ones(2)), "second": nn.Parameter(torch.ones(2, dtype=torch.float64))}
    with pytest.raises(EngineUnsupported, match=r"second is torch\.float64"):
        reject_parameters(mixed)
    with pytest.raises(EngineUnsupported, match="no parameter that requires a gradient"):
        reject_parameters({})


def test_overlap_false_is_what_it_does_anyway(served_cell: MakeServed) -> None:
    assert served_cell(overlap=False).status is None

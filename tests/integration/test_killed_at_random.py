"""Any process of a sweep is killed at any moment: what was measured stays, no process is left, and it can be resumed.

    BENCH_KILLS=50 python -m pytest tests/integration/test_killed_at_random.py     # a search; 3 by default

The moment is drawn again each time, from before the first import to after the report; a failure names it.
"""

from __future__ import annotations

import contextlib
import os
import random
import time

import psutil
import pytest

from tests.broken_sweep import Broken, ranks_below

KILLS = int(os.environ.get("BENCH_KILLS", "3"))
LASTS_S = 12.0
"""About as long as the sweep takes; later moments find it ended, which is a moment like any other."""


def family(process: psutil.Process) -> dict[str, list[psutil.Process]]:
    """The processes of a sweep by what they are: itself, its fork server, and what that runs."""
    with contextlib.suppress(psutil.Error):
        servers = [child for child in process.children() if "bench.launch.forkserver" in child.cmdline()]
        ranks = [rank for server in servers for rank in ranks_below(server)]
        return {"sweep": [process], "fork server": servers, "rank": ranks}
    return {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("number", range(KILLS))
def test_whatever_is_killed_whenever_nothing_that_was_measured_is_lost(sweep: Broken, number: int) -> None:
    chance = random.Random(f"{number} {time.time_ns()}")
    victim, after_s = chance.choice(("sweep", "fork server", "rank")), chance.uniform(0, LASTS_S)
    arguments = ("stage=0,3", "repeats=6", "engine=native,parameter_server")
    process = sweep.start(*arguments)
    time.sleep(after_s)
    victims = family(psutil.Process(process.pid)).get(victim, [])
    if victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            chance.choice(victims).kill()
    _, errors = process.communicate(timeout=600)
    case = f"{victim} killed after {after_s:.2f} s ({'there' if victims else 'not there'}):\n{errors}"
    deadline = time.monotonic() + 60
    while sweep.left() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sweep.left() == [], case
    assert "Traceback" not in errors, case
    kept = {cell: record.launches for cell, record in sweep.records().items()}  # raises for one that is cut

    code, output = sweep.run(*arguments, *(["resume=true"] if (sweep.folder / "records").is_dir() else []))
    assert code == 0, case + output
    now = sweep.records()
    assert sorted(record.status for record in now.values()) == ["ok", "ok", "ok", "unsupported"], case
    assert all(now[cell].launches[: len(launches)] == launches for cell, launches in kept.items()), case
    assert all(len(record.launches) == 6 for record in now.values() if record.status == "ok"), case
    assert not list((sweep.folder / "records").glob(".*")), case

"""Runs a function on ranks of its own: forked processes with a gloo process group.

    python -m claims.ranks claims.programs.averaging:worked_example 2 '{}'

Prints a JSON list of what each rank returned; null for a rank that was killed. If one raises, the others are ended, and
it exits with 1 and the traceback; so it does if they are not done after ``TIMEOUT_S``.

Not a purpose of the suite's launcher: a program may kill ranks and continue with the rest, where the launcher ends the
launch, and its result is any JSON, where a launch returns a dataclass.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.launch.prctl import die_with_parent

TIMEOUT_S = 300.0
RAISED = 1
"""Exit code of a rank."""


def run(function: str, ranks: int, arguments: dict[str, Any], timeout_s: float = TIMEOUT_S) -> list[Any]:
    """Runs ``function`` on ranks; returns their results. Raises RuntimeError if one raised or is not done in time."""
    module, _, name = function.partition(":")
    called = getattr(importlib.import_module(module), name)  # torch with it: once, before ranks are forked
    with tempfile.TemporaryDirectory() as place:
        folder, parent = Path(place), os.getpid()
        children = []
        for rank in range(ranks):
            child = os.fork()
            if child == 0:
                die_with_parent(parent)
                _rank(functools.partial(called, rank=rank, ranks=ranks, **arguments), rank, ranks, folder)
            children.append(child)
        done = _wait(set(children), timeout_s)
        errors = list(folder.glob("*.error"))
        if errors:  # the others' are about the peer that is gone
            raise RuntimeError(min(errors, key=lambda path: path.stat().st_mtime_ns).read_text())
        if not done:
            raise RuntimeError(f"{function}: not all of {ranks} ranks were done after {timeout_s:g} s")
        results = [folder / f"{rank}.json" for rank in range(ranks)]
        return [json.loads(path.read_text()) if path.exists() else None for path in results]


def _rank(function: Callable[[], Any], rank: int, ranks: int, folder: Path) -> None:
    """Runs one rank; never returns. Exits without interpreter shutdown, in which gloo's threads can hang."""
    import torch
    import torch.distributed as dist

    code = 0
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=ranks)
        dist.barrier()  # no rank exits while another still connects to it
        result = json.dumps(function())
        (folder / f"{rank}.json").write_text(result)
    except BaseException:
        (folder / f"{rank}.error").write_text(f"rank {rank}: {traceback.format_exc()}")
        code = RAISED
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(children: set[int], timeout_s: float) -> bool:
    """Until all have ended: by themselves (True), or because one raised; after ``timeout_s`` they are ended (False)."""
    until, raised = time.monotonic() + timeout_s, False
    while children and not raised:
        child, status = os.waitpid(-1, os.WNOHANG)
        children.discard(child)
        raised = os.waitstatus_to_exitcode(status) == RAISED if child else False
        if child == 0:
            if time.monotonic() > until:
                break
            time.sleep(0.02)
    for left in children:
        os.kill(left, signal.SIGKILL)
        os.waitpid(left, 0)
    return raised or not children


def main() -> None:
    function, ranks, arguments = sys.argv[1:4]
    try:
        print(json.dumps(run(function, int(ranks), json.loads(arguments))))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

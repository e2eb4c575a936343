"""Runs a function on ranks of its own: forked processes with a gloo process group.

    python -m claims.ranks claims.programs.averaging:worked_example 2 '{}'

Prints a JSON list of what each rank returned; null for a rank that was killed. Exits with 1, and the traceback of the
first, if one raised, and if they are not done after ``TIMEOUT_S``.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

TIMEOUT_S = 300.0


def run(function: str, ranks: int, arguments: dict[str, Any]) -> list[Any]:
    """What ``function`` returned on each rank. Raises RuntimeError if one raised, or all are not done in time."""
    module, _, name = function.partition(":")
    imported = importlib.import_module(module)  # torch with it: once, before ranks are forked
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        children = {}
        for rank in range(ranks):
            child = os.fork()
            if child == 0:
                _rank(getattr(imported, name), rank, ranks, arguments, folder)
            children[child] = rank
        _wait(set(children))
        errors = sorted(folder.glob("*.error"))
        if errors:
            raise RuntimeError(errors[0].read_text())
        return [json.loads(path.read_text()) if path.exists() else None for path in places(folder, ranks)]


def places(folder: Path, ranks: int) -> list[Path]:
    return [folder / f"{rank}.json" for rank in range(ranks)]


def _rank(function: Any, rank: int, ranks: int, arguments: dict[str, Any], folder: Path) -> None:
    """The life of one rank; never returns. Leaves without interpreter shutdown, in which gloo's threads can hang."""
    import torch
    import torch.distributed as dist

    code = 0
    try:
        torch.set_num_threads(1)
        dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
        result = json.dumps(function(rank=rank, ranks=ranks, **arguments))
        (folder / f"{rank}.json").write_text(result)
    except BaseException:
        (folder / f"{rank}.error").write_text(f"rank {rank}: {traceback.format_exc()}")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _wait(children: set[int]) -> None:
    """Until all have ended. Ends them, and raises RuntimeError, after ``TIMEOUT_S``."""
    until = time.monotonic() + TIMEOUT_S
    while children:
        child, _ = os.waitpid(-1, os.WNOHANG)
        children.discard(child)
        if child == 0:
            if time.monotonic() > until:
                for left in children:
                    os.kill(left, signal.SIGKILL)
                    os.waitpid(left, 0)
                raise RuntimeError(f"{len(children)} ranks were not done after {TIMEOUT_S:.0f} s")
            time.sleep(0.02)


def main() -> None:
    function, ranks, arguments = sys.argv[1:4]
    try:
        print(json.dumps(run(function, int(ranks), json.loads(arguments))))
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

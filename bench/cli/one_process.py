"""One command is one sweep: an error if another launcher starts it once per rank."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

from bench.checks import ConfigError

NOT_RUN = 2
"""Exit status where nothing could be run."""
HINT = "for several nodes, start one process per node and add cluster=env; else "
LAUNCHERS = (
    ("torchrun", "RANK", "WORLD_SIZE"),
    ("mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("mpirun", "MV2_COMM_WORLD_RANK", "MV2_COMM_WORLD_SIZE"),
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
    ("mpirun", "PMI_RANK", "PMI_SIZE"),
)
"""Launchers with the variables in which their processes find their rank and their number.

A batch script and a shell of ``salloc`` have SLURM_PROCID and SLURM_NTASKS too: only a step has its number of tasks.
"""


def check_alone(module: str, arguments: Sequence[str], variables: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError if ``python -m module arguments`` was started as several processes.

    Only the first of them does, so that one line is printed; the others exit with the same status.
    """
    for launcher, rank, size in LAUNCHERS:
        number, count = variables.get(rank, ""), variables.get(size, "")
        if number.isdecimal() and count.isdecimal() and int(count) > 1:
            if int(number):
                raise SystemExit(NOT_RUN)
            words = ["python", "-m", module, *arguments]
            if module == "bench" and not any(word.startswith(("gpus=", "experiment=", "reproduce=")) for word in words):
                words.append(f"gpus={count}")
            raise ConfigError(
                f"started as {count} processes by {launcher} ({rank}={number}, {size}={count}), but one process starts "
                f"all ranks; {HINT if module == 'bench' else ''}run it once, without {launcher}: {shlex.join(words)}"
            )

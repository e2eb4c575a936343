"""One rank, from process group to result: the only package that uses both an engine and a workload.

Read in this order:

    rank.py        a rank's life: which of the following it does
    process.py     threads, seeds, determinism, device
    group.py       store, process group and barriers of a launch
    batches.py     what a rank trains on
    engine.py      the engine, set up to train it
    stopwatch.py   how long each phase of this takes

What a rank does, by the kind of its launch (``bench.job``):

    timing.py      measured steps
    target.py      measured steps that end once a target loss is reached
    updates.py     whether they updated the weights
    profile.py     what steps are made of
    check.py       parity, memory, collectives
    reference.py   what parity compares with: one process and no engine, and its noise
    preconditions.py  what a workload promises, checked in the reference
    randomness.py  the random numbers that ranks and that process draw
    replicas.py    whether all ranks have the same weights
    model.py       what the reference counts on the model
    machine.py     what the machine reaches without engine and workload
"""

from __future__ import annotations

from bench.worker.rank import run
from workloads.base import WorkloadError

__all__ = ["WorkloadError", "run"]

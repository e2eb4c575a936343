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
    check.py       parity, memory, collectives
    profile.py     the parts of steps
    reference.py   the reference of parity, one process without an engine; and its noise
    machine.py     the machine without engine and workload: FLOP/s, links, collectives by size

Steps, in all of these:

    loop.py        training steps over global batches
    feed.py        their batches, from a pool or from a DataLoader
    target.py      ends them once a target loss is reached
    straggler.py   slows one rank, on purpose
    no_comm.py     runs them without communication
    fake_group.py  runs one rank of a world that is not there
    updates.py     whether they updated the weights
    trace_files.py what they leave in files

Parity, between the ranks and the reference:

    single_process.py  the training of the reference
    parity.py      the errors of the ranks
    replicas.py    whether all ranks have the same weights
    randomness.py  the random numbers that ranks and reference draw
    bits.py        tensors compared bit by bit

What the reference observes of a workload:

    preconditions.py  what a workload promises
    global_state.py   global state that a workload changes
    patches.py     functions of torch that something replaced
    model.py       the model, counted
    reached.py     which parameters get a gradient
    loss_trace.py  how the loss uses the module, by gradients
    reads.py       the same without gradients
    own_state.py   what else the loss depends on
"""

from __future__ import annotations

from bench.worker.rank import run
from workloads.base import WorkloadError

__all__ = ["WorkloadError", "run"]

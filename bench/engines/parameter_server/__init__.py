"""A parameter server: workers push gradients to servers, which update the parameters, and pull these back.

The ranks are the workers. Each of ``servers`` further processes holds an even slice of the flat fp32 parameters and
the optimizer of that slice. ``mode`` says when a pushed gradient is applied and when its worker may go on:

    mode      a server applies                      the worker gets the parameters back
    sync      the mean of all workers' gradients    once it is applied
    async     each gradient, as it comes            at once
    bounded   each gradient, as it comes            once the slowest worker is at most ``staleness`` gradients behind

So N workers make one update a step in sync mode, and N updates in the other two. Clipping bounds the gradient of each
update.

Read in this order:

    protocol.py   the messages and their groups; the slices
    clocks.py     who is how far ahead, and who has to wait
    server.py     a server, from the first worker's arrival to the last one's leave; what it counts
    worker.py     the engine in a rank
    adapter.py    both, as the harness creates them

Source: Li et al., Scaling Distributed Machine Learning with the Parameter Server (OSDI 2014); bounded: Ho et al., More
Effective Distributed ML via a Stale Synchronous Parallel Parameter Server (NIPS 2013), section 2.
"""

from __future__ import annotations

from bench.engines.spec import (
    HYPERPARAMETERS,
    Capabilities,
    EngineSpec,
    EngineUnsupported,
    Traits,
    count_option,
    option,
)
from results.identity import as_written

MODES = ("sync", "async", "bounded")

CAPABILITIES = Capabilities(
    stages={0: "push of gradients to servers, pull of parameters"},
    settings=("overlap", "clip_norm", "accumulate", *HYPERPARAMETERS),
    precisions=("fp32", "amp_bf16"),
    optimizers=("sgd", "adam", "adamw", "rmsprop"),
    backends=("gloo",),
    why_not={
        "stage": "a parameter server shards nothing among workers",
        "precision": "servers keep fp32 weights, and none sees the whole gradient that loss scaling has to check",
        "optimizer": "Muon orthogonalizes whole matrices, and a server has a slice of one flat tensor",
        "backend": "its messages are point to point on the host",
        "quantize": "it sends floating-point numbers; valid: quantize=none, engine=native",
        "bucket_mb": "a push is one slice a server",
        "local_steps": "every step pushes",
        "join": "a server in sync mode waits for every worker",
    },
)
UNCOUNTED = "pushes and pulls go over a process group of their own"
UNSILENCED = "ranks and servers would still communicate over a process group of their own"
PRELOAD = ("torch._dynamo", "torch.optim", "torch.profiler")


def check_settings(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for options that are not valid, and for what cannot go together."""
    mode = option(spec, "mode", *MODES)
    servers = count_option(spec, "servers")
    staleness = spec.options.get("staleness")
    if mode == "bounded":
        count_option(spec, "staleness", least=0)
    elif staleness is not None:
        raise EngineUnsupported(
            f"engine=parameter_server with engine.mode={mode} has no engine.staleness={as_written(staleness)}: "
            "only engine.mode=bounded waits for the slowest worker; valid: null"
        )
    if spec.overlap:
        raise EngineUnsupported("engine=parameter_server has no overlap=true: it pushes after backward")
    if spec.clip_norm is not None and servers > 1:
        raise EngineUnsupported(
            f"engine=parameter_server with engine.servers={servers} has no clip_norm={spec.clip_norm:g}: "
            "no server sees the global norm; valid: engine.servers=1"
        )


def traits(spec: EngineSpec) -> Traits:
    """Servers in addition to the ranks; and, in async and bounded mode, workers that do not wait for each other."""
    servers = count_option(spec, "servers")
    if spec.options["mode"] == "sync" or spec.world_size == 1:
        return Traits(servers=servers, uncounted=UNCOUNTED, unsilenced=UNSILENCED)
    return Traits(
        servers=servers,
        outside_parity="each gradient is an update of its own, of parameters that others have moved on since",
        synchronous=False,
        unrepeatable=f"with engine.mode={spec.options['mode']} gradients are applied in the order in which they arrive",
        uncounted=UNCOUNTED,
        unsilenced=UNSILENCED,
    )

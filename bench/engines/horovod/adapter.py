"""Horovod, used as documented, except for the rendezvous: ranks are already running."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.horovod import INSTALLED
from bench.engines.kept_state import kept_state
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.precision import autocast
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec
from bench.engines.unsupported import reject_sparse
from results.precision import PRECISIONS
from results.resolved import EngineDescription

if INSTALLED:  # the fork server imports the adapters of all engines that a sweep names
    import horovod
    import horovod.torch as hvd
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

LOOPBACK = "127.0.0.1"
DEFAULT_FUSION_MB = 128.0
"""Horovod's own (0.28.1)."""


class HorovodDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    cycle_time_ms: float


class HorovodEngine:
    """``hvd.DistributedOptimizer`` over a module that it leaves as it is."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        reject_sparse("horovod", module)
        self.module = module
        self.spec = spec
        self.context = context
        start(spec, context)
        hvd.broadcast_parameters(module.state_dict(), root_rank=0)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        fused = {"fused": True} if spec.optimizer in FUSED else {}
        self.optimizer = hvd.DistributedOptimizer(
            build_optimizer(spec, weights, **fused),
            named_parameters=module.named_parameters(),
            compression=getattr(hvd.Compression, spec.compression),
            backward_passes_per_step=spec.accumulate,  # adds up: dividing is left to the loss
            groups=1 if spec.overlap is False else None,  # one group is reduced once all its gradients are there
        )
        self.scaler = torch.amp.GradScaler(context.device.type, enabled=PRECISIONS[spec.precision].loss_scaling)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        """The optimizer counts the backward passes itself, and reduces in the last one."""
        with autocast(self.spec.precision, self.context.device.type):
            loss = loss_fn(self.module, batch)
        self.scaler.scale(loss / self.spec.accumulate).backward()
        return loss.detach()

    def optimizer_step(self) -> None:
        self.optimizer.synchronize()
        if self.spec.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.module.parameters(), self.spec.clip_norm)
        with self.optimizer.skip_synchronize():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()

    @contextlib.contextmanager
    def join(self) -> Iterator[None]:
        """A rank that is done takes part in the others' reductions with zeros; in the end all take the last one's."""
        yield
        last = hvd.join()
        hvd.broadcast_parameters(self.module.state_dict(), root_rank=last)

    def loss_scaling(self) -> LossScaling | None:
        return LossScaling.of(self.scaler)

    def state(self) -> dict[str, list[Tensor]]:
        """Horovod keeps its fusion buffer to itself."""
        return kept_state(list(self.module.parameters()), self.optimizer, self.module.buffers())

    def full_state_dict(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.module.named_parameters()}

    def describe(self) -> HorovodDescription:
        return {
            "library": f"horovod {horovod.__version__}",
            "wrapper": "hvd.DistributedOptimizer",
            "overlap": self.spec.overlap is not False,
            "bucket_mb": DEFAULT_FUSION_MB if self.spec.bucket_mb is None else self.spec.bucket_mb,
            "cycle_time_ms": self.spec.options["cycle_time_ms"],
            "reduce_dtype": "float16" if self.spec.compression == "fp16" else "float32",
        }

    def teardown(self) -> None:
        hvd.shutdown()


def start(spec: EngineSpec, context: RankContext) -> None:
    """``hvd.init()`` with the environment that ``horovodrun`` would have given to this rank."""
    rank, size = str(context.rank), str(context.world_size)
    with rendezvous(context) as port:
        os.environ |= {
            "HOROVOD_RANK": rank,
            "HOROVOD_SIZE": size,
            "HOROVOD_LOCAL_RANK": rank,
            "HOROVOD_LOCAL_SIZE": size,
            "HOROVOD_CROSS_RANK": "0",
            "HOROVOD_CROSS_SIZE": "1",
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            "HOROVOD_GLOO_IFACE": "lo",
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": LOOPBACK,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CYCLE_TIME": str(spec.options["cycle_time_ms"]),
        }
        if spec.bucket_mb is not None:
            os.environ["HOROVOD_FUSION_THRESHOLD"] = str(round(spec.bucket_mb * 2**20))
        hvd.init()
        hvd.barrier()  # rank 0 keeps the server until all ranks are connected


@contextlib.contextmanager
def rendezvous(context: RankContext) -> Iterator[int]:
    """The port of Horovod's rendezvous server, which is rank 0's."""
    if context.rank:
        yield int(context.store.get("horovod_port"))
        return
    with RendezvousHTTPServer((LOOPBACK, 0), RendezvousHandler, verbose=0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        context.store.set("horovod_port", str(server.server_port))
        yield server.server_port
        server.shutdown()


def create() -> Engine:
    return HorovodEngine()

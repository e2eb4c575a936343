"""Forward, backward and an unsharded fused update, with no communication and no bookkeeping."""

from __future__ import annotations

from torch import Tensor, nn

from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.spec import EngineSpec
from results.resolved import EngineDescription


class PlainEngine:
    """What a single process would do."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.module = module
        fused = {"fused": True} if spec.optimizer in FUSED else {}
        self.optimizer = build_optimizer(spec, module.parameters(), **fused)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        loss = loss_fn(self.module, batch)
        loss.backward()
        return loss.detach()

    def optimizer_step(self) -> None:
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        return {"params": list(self.module.parameters())}

    def full_state_dict(self) -> dict[str, Tensor]:
        return {name: weight.detach() for name, weight in self.module.named_parameters()}

    def describe(self) -> EngineDescription:
        return {}

    def teardown(self) -> None:
        """Nothing to release."""


def create() -> Engine:
    return PlainEngine()

"""What a rank computes in forward and backward: its operations, in order, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from bench.engines.base import Batch
from claims.programs import engines

COMPUTES = ("addmm", "mm", "tanh", "tanh_backward", "sum", "mse_loss", "mse_loss_backward")
"""The operators of the model and its loss. All others copy, view, send, or scale the loss."""


class Operations(TorchDispatchMode):
    """Writes down every operator of the model that runs in its context, with the shapes of its tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operators: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(kind.__torch_dispatch__ is not Tensor.__torch_dispatch__ for kind in types):
            return NotImplemented  # a DTensor's operator comes again as what it is made of
        name = func._schema.name.partition("::")[2]
        if func.namespace == "aten" and name in COMPUTES:
            shapes = [tuple(entry.shape) for entry in args if isinstance(entry, Tensor)]
            self.operators.append(f"{name} {shapes}")
        return func(*args, **(kwargs or {}))


def nodes_run(loss: Tensor, ran: list[str]) -> None:
    """Has every node of the graph behind ``loss`` write its name to ``ran`` as backward reaches it."""
    pending, seen = [loss.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        node.register_prehook(partial(wrote, ran, node.name()))
        pending += [following for following, _ in node.next_functions]


def wrote(ran: list[str], name: str, *_: Any) -> None:
    ran.append(name)


def trace(name: str, stage: int, rank: int, ranks: int, module: nn.Module | None = None) -> dict[str, Any]:
    """One step, the third, of an engine."""
    trained = engines.engine(name, stage, rank, ranks, module)
    engines.train(trained, range(2), rank)
    nodes: list[str] = []

    def loss(module: nn.Module, samples: Batch) -> Tensor:
        value = engines.loss(module, samples)
        nodes_run(value, nodes)
        return value

    counter, operations = FlopCounterMode(display=False), Operations()
    with counter, operations:
        trained.forward_backward(engines.batch(2, rank), loss, sync=True)
    trained.optimizer_step()
    return {"flops": counter.get_total_flops(), "operations": operations.operators, "nodes": nodes}


def of_stages(rank: int, ranks: int, names: Sequence[str]) -> dict[str, Any]:
    """Traces of all stages of some engines, and of ranks that do what is claimed of ZeRO."""
    traces = {f"{name} {stage}": trace(name, stage, rank, ranks) for name in names for stage in range(4)}
    return traces | {
        "deferred": trace("native", 0, rank, ranks, Recomputed(engines.model())),
        "own gradients only": {"flops": own_gradients_only(rank, ranks)},
    }


class Recomputed(nn.Module):
    """Leaves half of forward to backward: a computation that really is deferred."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.first, self.second = layers[:4], layers[4:]

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = checkpoint(self.first, inputs, use_reentrant=False)
        assert isinstance(hidden, Tensor)
        output: Tensor = self.second(hidden)
        return output


def own_gradients_only(rank: int, ranks: int) -> int:
    """Operations of a rank that computes gradients of its own share of the layers only."""
    module = engines.model()
    own = [part for part in module if isinstance(part, nn.Linear)][rank::ranks]
    counter = FlopCounterMode(display=False)
    with counter:
        engines.loss(module, engines.batch(2, rank)).backward(
            inputs=[weight for layer in own for weight in layer.parameters()]
        )
    return int(counter.get_total_flops())

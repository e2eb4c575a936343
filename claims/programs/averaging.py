"""The arithmetic of averaging, on ranks, in plain torch: DDP, ZeRO, one process, and rules that are wrong.

All train a small network on real digits from the same weights and on the same global batches; each rank takes its
part. A distance between weights is a share of what training moved them: of the reference's way from its start.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce as differentiable_all_reduce
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from bench.engines.exchange import all_gather_json
from workloads.data import digits

Batch = tuple[Tensor, Tensor]
Update = Callable[[list[nn.Parameter], list[Tensor]], None]
"""Changes weights in place by the gradients of the global batch's mean loss."""

GLOBAL_BATCH = 64
STEPS = 50
LR = 0.1


def network(dtype: torch.dtype, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10)).to(dtype)


def batches(dtype: torch.dtype, seed: int = 0) -> Iterator[Batch]:
    source = digits(seed)
    for step in range(STEPS):
        images, labels = source.batch(range(step * GLOBAL_BATCH, (step + 1) * GLOBAL_BATCH))
        yield images.flatten(1).to(dtype), labels


def part(batch: Batch, rank: int, ranks: int) -> Batch:
    images, labels = batch
    return images.chunk(ranks)[rank], labels.chunk(ranks)[rank]


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def flat(model: nn.Module) -> Tensor:
    return parameters_to_vector(model.parameters()).detach()


def distance(weights: Tensor, reference: Tensor, start: Tensor) -> float:
    return float((weights - reference).norm() / (reference - start).norm())


def trained_on_ranks(
    rank: int, ranks: int, dtype: torch.dtype, lr: float = LR, *, zero: bool = False
) -> tuple[Tensor, list[float]]:
    """Weights after DistributedDataParallel with SGD or ZeroRedundancyOptimizer, and the global loss of each step."""
    model = network(dtype)
    wrapped = DistributedDataParallel(model)
    optimizer = zero_sgd(model, lr) if zero else torch.optim.SGD(model.parameters(), lr=lr)
    losses = []
    for batch in batches(dtype):
        optimizer.zero_grad()
        loss = loss_of(wrapped, part(batch, rank, ranks))
        loss.backward()
        optimizer.step()
        total = loss.detach().double()
        dist.all_reduce(total)
        losses.append(float(total) / ranks)
    return flat(model), losses


def zero_sgd(model: nn.Module, lr: float) -> ZeroRedundancyOptimizer:
    return ZeroRedundancyOptimizer(model.parameters(), torch.optim.SGD, lr=lr)


def trained_alone(dtype: torch.dtype, update: Update, seed: int = 0) -> tuple[Tensor, list[float]]:
    """Weights and losses of one process that takes each global batch whole."""
    model = network(dtype, seed)
    weights = list(model.parameters())
    losses = []
    for batch in batches(dtype, seed):
        loss = loss_of(model, batch)
        gradients = list(torch.autograd.grad(loss, weights))
        with torch.no_grad():
            update(weights, gradients)
        losses.append(float(loss.detach()))
    return flat(model), losses


def descend(lr: float) -> Update:
    return descend_each([lr] * len(list(network(torch.float32).parameters())))


def descend_each(lrs: list[float]) -> Update:
    """Gradient descent, with a learning rate for each tensor."""

    def update(weights: list[nn.Parameter], gradients: list[Tensor]) -> None:
        for weight, gradient, lr in zip(weights, gradients, lrs, strict=True):
            weight.sub_(lr * gradient)

    return update


def become_gradients(weights: list[nn.Parameter], gradients: list[Tensor]) -> None:
    """The literal rule: weights are the mean of gradients."""
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.copy_(gradient)


def against_one_process(rank: int, ranks: int, dtype: str) -> dict[str, float]:
    """How far DDP ends from one process on the whole batch, and how far a rank that never averages does."""
    kind = torch.float64 if dtype == "fp64" else torch.float32
    start = flat(network(kind))
    on_ranks, losses = trained_on_ranks(rank, ranks, kind)
    alone, alone_losses = trained_alone(kind, descend(LR))
    never = spread_of("own gradient", rank, ranks)[1]
    return {
        "weights": distance(on_ranks, alone, start),
        "losses": max(abs(a - b) / b for a, b in zip(losses, alone_losses, strict=True)),
        "without averaging": distance(never.to(kind), alone, start),
    }


def sum_or_mean(rank: int, ranks: int, zero: bool) -> dict[str, float]:
    """How far training on ranks ends from one process that descends the mean, or the sum, of the ranks' losses."""
    dtype = torch.float64
    start = flat(network(dtype))
    on_ranks = trained_on_ranks(rank, ranks, dtype, zero=zero)[0]
    mean = trained_alone(dtype, descend(LR))[0]
    total = trained_alone(dtype, descend(LR * ranks))[0]  # the sum's gradient is ranks times the mean's
    return {
        "mean": distance(on_ranks, mean, start),
        "sum": distance(on_ranks, total, start),
        "sum, ranks at lr times their number": distance(
            trained_on_ranks(rank, ranks, dtype, LR * ranks, zero=zero)[0], total, start
        ),
    }


def weights_from_gradients(rank: int, ranks: int, seeds: int) -> dict[str, list[float] | float]:
    """Losses at the first and the last step where weights become the mean gradient, and where they descend it."""
    dtype = torch.float64
    literal = [trained_alone(dtype, become_gradients, seed) for seed in range(seeds)]
    descended = [trained_alone(dtype, descend(LR), seed) for seed in range(seeds)]
    on_ranks, start = trained_on_ranks(rank, ranks, dtype)[0], flat(network(dtype))
    return {
        "first": [losses[0] for _, losses in literal],
        "literal": [losses[-1] for _, losses in literal],
        "descent": [losses[-1] for _, losses in descended],
        "literal from DDP": distance(literal[0][0], on_ranks, start),
        "descent from DDP": distance(descended[0][0], on_ranks, start),
    }


def groups_scaled(rank: int, ranks: int) -> dict[str, float | list[int]]:
    """How far descent by sums of gradients over k ends from ZeRO, k being what a rank's group of parameters counts."""
    dtype = torch.float64
    start = flat(network(dtype))
    owned = owned_by_each_rank(ranks)
    numels = [weight.numel() for weight in network(dtype).parameters()]
    elements, tensors = [0.0] * len(numels), [0.0] * len(numels)
    for indices in owned:
        for index in indices:
            elements[index] = LR * ranks / sum(numels[i] for i in indices)
            tensors[index] = LR * ranks / len(indices)
    zero = trained_on_ranks(rank, ranks, dtype, zero=True)[0]

    def gap(update: Update) -> float:
        return distance(trained_alone(dtype, update)[0], zero, start)

    return {
        "over ranks": gap(descend(LR)),
        "over elements": gap(descend_each(elements)),
        "over tensors": gap(descend_each(tensors)),
        "elements of groups": [sum(numels[i] for i in indices) for indices in owned],
    }


def owned_by_each_rank(ranks: int) -> list[list[int]]:
    """Indices of the tensors that each rank's part of ZeroRedundancyOptimizer updates."""
    model = network(torch.float64)
    own = {id(weight) for group in zero_sgd(model, LR).optim.param_groups for weight in group["params"]}
    mine = [index for index, weight in enumerate(model.parameters()) if id(weight) in own]
    owned: list[list[int]] = all_gather_json(mine, torch.device("cpu"))
    return owned


def replicas(rank: int, ranks: int, rule: str) -> dict[str, float]:
    """How far apart replicas are that ``rule`` trained, and rank 0's from one process on the whole batch."""
    spread, weights = spread_of(rule, rank, ranks)
    alone = trained_alone(torch.float64, descend(LR))[0]
    return {"spread": spread, "from one process": distance(weights, alone, flat(network(torch.float64)))}


def spread_of(rule: str, rank: int, ranks: int) -> tuple[float, Tensor]:
    """The largest distance of a rank's weights from rank 0's, as a share of rank 0's way; and rank 0's weights."""
    dtype = torch.float64
    if rule in ("DDP", "ZeRO"):
        weights = trained_on_ranks(rank, ranks, dtype, zero=rule == "ZeRO")[0]
    else:
        weights = trained_apart(rank, ranks, rule)
    gathered = [torch.empty_like(weights) for _ in range(ranks)]
    dist.all_gather(gathered, weights)
    start = flat(network(dtype))
    return max(distance(other, gathered[0], start) for other in gathered), gathered[0]


def trained_apart(rank: int, ranks: int, rule: str) -> Tensor:
    """A rank's weights after descending its own gradient.

    The rule is what is shared all the same: nothing (``own gradient``); updated shards, each by its owner's gradient
    (``shards``); the value of the loss (``loss``); a loss all-reduced as a part of the graph (``loss in graph``).
    """
    dtype = torch.float64
    model = network(dtype)
    optimizer = zero_sgd(model, LR) if rule == "shards" else torch.optim.SGD(model.parameters(), lr=LR)
    for batch in batches(dtype):
        optimizer.zero_grad()
        loss = loss_of(model, part(batch, rank, ranks))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if rule == "loss":
                dist.all_reduce(loss)
            elif rule == "loss in graph":
                loss = differentiable_all_reduce(loss) / ranks
            loss.backward()
        optimizer.step()
    return flat(model)


def worked_example(rank: int, ranks: int) -> dict[str, float]:
    """One step at 0.1 of (θ - 1)², θ being 2 on rank 0 and 3 on rank 1: gradients averaged by hand, and under DDP."""

    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.tensor(2.0 + rank, dtype=torch.float64))

        def forward(self) -> Tensor:
            return (self.weight - 1) ** 2

    by_hand, under_ddp = Scalar(), Scalar()
    by_hand().backward()
    assert by_hand.weight.grad is not None
    values = {"gradient": float(by_hand.weight.grad)}
    dist.all_reduce(by_hand.weight.grad)
    by_hand.weight.grad /= ranks
    values["synced"] = float(by_hand.weight.grad)
    torch.optim.SGD(by_hand.parameters(), lr=LR).step()
    values["updated"] = by_hand.weight.item()
    wrapped = DistributedDataParallel(under_ddp)
    values["start under DDP"] = under_ddp.weight.item()
    wrapped().backward()
    torch.optim.SGD(under_ddp.parameters(), lr=LR).step()
    values["updated under DDP"] = under_ddp.weight.item()
    return values

"""Trains classifiers to the end on ranks, by engines of this suite, and tests them on held-out images.

A seed draws the first weights, the test images, and the order of the others: two ways to train that share a
seed differ in nothing else. Every global batch is the same whatever the number of ranks, each of which takes its part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from bench.engines.base import Batch
from claims.programs import engines
from workloads import cnn_cifar
from workloads.data import digits
from workloads.digits import network
from workloads.files import cifar10

TEST_IMAGES = 360
TRAINED = 1797 - TEST_IMAGES
WIDTH = 16
"""Channels of the network's convolutions."""
LR = 0.02
"""With momentum 0.9."""


def train(
    rank: int, ranks: int, engine: str, stage: int, seeds: Sequence[int], global_batch: int, epochs: int
) -> dict[str, list[list[float]] | list[float]]:
    """By seed: the mean loss of each epoch, and after the last one loss and accuracy on the test images."""
    results = [train_one(rank, ranks, engine, stage, seed, global_batch, epochs) for seed in seeds]
    return {
        "epoch_losses": [losses for losses, _, _ in results],
        "held_out_loss": [loss for _, loss, _ in results],
        "accuracy": [accuracy for _, _, accuracy in results],
    }


def train_one(
    rank: int, ranks: int, name: str, stage: int, seed: int, global_batch: int, epochs: int
) -> tuple[list[float], float, float]:
    torch.manual_seed(seed)
    model = network(WIDTH, depth=2)
    copy = network(WIDTH, depth=2)  # engines may shard the other
    units = list(model.children())
    spec = engines.spec_of(name, ranks, stage=stage, optimizer="sgd", lr=LR)
    engine = engines.set_up(name, model, units, spec, rank)
    losses = []
    for epoch in range(epochs):
        own = torch.zeros((), dtype=torch.float64)
        steps = list(batches(seed, epoch, global_batch))
        for batch in steps:
            part = tuple(column.chunk(ranks)[rank] for column in batch)
            own += engine.forward_backward(part, loss_of, sync=True)
            engine.optimizer_step()
        dist.all_reduce(own)
        losses.append(float(own) / len(steps) / ranks)
    copy.load_state_dict(engine.full_state_dict())
    engine.teardown()
    return losses, *tested(copy, seed)


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    images, labels = batch
    return F.cross_entropy(model(images), labels)


def batches(seed: int, epoch: int, global_batch: int) -> Iterator[Batch]:
    """The trained images in this epoch's order; what does not fill a batch is left out."""
    order = torch.randperm(TRAINED, generator=torch.Generator().manual_seed(1000 * seed + epoch)).tolist()
    source = digits(seed)
    for begin in range(0, TRAINED - global_batch + 1, global_batch):
        yield source.batch(order[begin : begin + global_batch])


def tested(model: nn.Module, seed: int) -> tuple[float, float]:
    """Loss and accuracy on the test images."""
    images, labels = digits(seed).batch(range(TRAINED, TRAINED + TEST_IMAGES))
    with torch.no_grad():
        logits = model(images)
    return float(F.cross_entropy(logits, labels)), float((logits.argmax(1) == labels).double().mean())


def early_losses(rank: int, ranks: int, steps: int) -> dict[str, float | list[float]]:
    """With plain SGD at 0.01 and batches of 64, each rank for itself: the first loss on images of CIFAR-10's shape, of
    a small CNN for these; and the loss of each step of one for digits."""
    torch.manual_seed(rank)
    with torch.no_grad():
        first = loss_of(cnn_cifar.network(), cifar10(rank, None).batch(range(64)))
    return {
        "CIFAR-10's shape": float(first),
        "digits": descent(network(64, depth=2), rank, steps),
        "steps_per_epoch": TRAINED // 64,
    }


def descent(model: nn.Module, seed: int, steps: int) -> list[float]:
    """The loss of each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses: list[float] = []
    epoch = 0
    while len(losses) < steps:
        for batch in batches(seed, epoch, 64):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        epoch += 1
    return losses[:steps]

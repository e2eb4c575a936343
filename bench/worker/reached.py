"""Which parameters get a gradient in each micro-batch: models that skip some make engines wait, or mismatch ranks."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction


class Reached:
    """Watches the trainable parameters of a module while a single process trains the micro-batches of all ranks."""

    def __init__(self, module: nn.Module) -> None:
        self._names = [name for name, weight in module.named_parameters() if weight.requires_grad]
        self._micro_batches: list[set[str]] = []
        for name, weight in module.named_parameters():
            if weight.requires_grad:
                weight.register_post_accumulate_grad_hook(self._note(name))

    def _note(self, name: str) -> Callable[[Tensor], None]:
        def note(_: Tensor) -> None:
            self._micro_batches[-1].add(name)

        return note

    def watching(self, loss_fn: LossFunction) -> LossFunction:
        """``loss_fn``; each call of it begins a micro-batch."""

        def watched(module: nn.Module, batch: Batch) -> Tensor:
            self._micro_batches.append(set())
            return loss_fn(module, batch)

        return watched

    def skipped(self) -> list[str]:
        """Parameters that got no gradient in some micro-batch."""
        return [name for name in self._names if any(name not in reached for reached in self._micro_batches)]

    def uneven(self, ranks: int, per_rank: int) -> list[str]:
        """Parameters that got a gradient on some ranks and not on others, in the same micro-batch of a step.

        Steps have ``per_rank`` micro-batches of rank 0, then of rank 1, and so on.
        """
        differing: set[str] = set()
        step = ranks * per_rank
        for first in range(0, len(self._micro_batches) - step + 1, step):
            for number in range(per_rank):
                together = self._micro_batches[first + number : first + step : per_rank]
                everywhere = {name for name in self._names if all(name in reached for reached in together)}
                differing |= set().union(*together) - everywhere
        return [name for name in self._names if name in differing]

"""Stage 3: parameters that are needed where no hook of their unit tells of it.

    read outside    ``F.linear(x, self.embedding.weight)`` in another module, ``unit.forward(x)``, a penalty on all
                    weights in the loss, a generator that a unit returned: a module looks its parameter up
    backward        what reaches the loss by no tensor that the unit returned (a field of a class of its own, an
                    auxiliary loss left on an attribute): autograd asks for a weight that it saved in forward

Both are watched here, and whoever needs a parameter whose bucket is not whole waits for it. Modules that come by their
parameters otherwise (a list of them that they keep) read NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.native.bucket import Bucket

Need = Callable[[Bucket, bool], None]
"""Called with a bucket that is needed, and whether it was read outside its unit."""


class Reach:
    """Watches the parameters of ``buckets``."""

    def __init__(self, module: nn.Module, buckets: list[Bucket], need: Need) -> None:
        self._need = need
        self._by_storage = {bucket.whole.untyped_storage()._cdata: bucket for bucket in buckets}
        homes = {id(parameter): bucket for bucket in buckets for parameter in bucket.parameters}
        for part in module.modules():
            if type(part._parameters) is dict:  # a scripted module has one of its own, in C++
                part._parameters = LookedUp(part._parameters, homes, need)

    def bucket_of(self, tensor: Tensor) -> Bucket | None:
        """The bucket whose memory ``tensor`` has a view of."""
        if tensor.layout is not torch.strided:
            return None
        return self._by_storage.get(tensor.untyped_storage()._cdata)

    def saved_weights(self) -> AbstractContextManager[Any]:
        """While it is open, autograd tells which of the tensors that it saves are weights, and asks for them."""
        return torch.autograd.graph.saved_tensors_hooks(self._save, self._restore)

    def _save(self, tensor: Tensor) -> Tensor | tuple[Tensor, Bucket]:
        bucket = self.bucket_of(tensor)
        return tensor if bucket is None else (tensor, bucket)

    def _restore(self, saved: Tensor | tuple[Tensor, Bucket]) -> Tensor:
        if not isinstance(saved, tuple):
            return saved
        tensor, bucket = saved
        if not bucket.is_whole:
            self._need(bucket, False)
        return tensor


class LookedUp(dict[str, "nn.Parameter | None"]):
    """A module's own parameters by name, for whoever looks one up."""

    def __init__(self, held: dict[str, nn.Parameter | None], homes: dict[int, Bucket], need: Need) -> None:
        super().__init__(held)
        self._buckets = {name: homes[id(held[name])] for name in held if id(held[name]) in homes}
        self._need = need

    def __getitem__(self, name: str) -> nn.Parameter | None:
        bucket = self._buckets.get(name)
        if bucket is not None and not bucket.in_use:
            self._need(bucket, True)
        return super().__getitem__(name)

    def items(self) -> Any:
        self._look_at_all()
        return super().items()

    def values(self) -> Any:
        self._look_at_all()
        return super().values()

    def __reduce__(self) -> Any:
        """A copy of a module, and a file of it, have plain parameters with their values, and no part of the engine."""
        return dict, (dict(self.items()),)

    def _look_at_all(self) -> None:
        for bucket in self._buckets.values():
            if not bucket.in_use:
                self._need(bucket, True)

"""Sharded parameters that are needed when no hook of their unit runs.

    read outside    ``F.linear(x, self.embedding.weight)`` in another module, ``unit.forward(x)``, a penalty on all
                    weights in the loss, a generator that a unit returned: a module looks its parameter up
    backward        what reaches the loss by no tensor that the unit returned (a field of a custom class, an auxiliary
                    loss in an attribute): autograd needs a weight that it saved in forward

Both are intercepted here, and a resharded bucket is unsharded at once. Modules that get their parameters in another way
(a list of them in an attribute) read NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from bench.engines.native.bucket import Bucket

OnAccess = Callable[[Bucket, bool], None]
"""Called with a bucket that is needed, and whether it was read outside its unit."""


class ParamAccess:
    """Intercepts accesses to the parameters of ``buckets``."""

    def __init__(self, module: nn.Module, buckets: list[Bucket], on_access: OnAccess) -> None:
        self._on_access = on_access
        self._by_storage = {bucket.unsharded_param.untyped_storage()._cdata: bucket for bucket in buckets}
        by_parameter = {id(parameter): bucket for bucket in buckets for parameter in bucket.parameters}
        for part in module.modules():
            if type(part._parameters) is dict:  # a scripted module has a type of its own, in C++
                part._parameters = InterceptedParameters(part._parameters, by_parameter, on_access)

    def bucket_of(self, tensor: Tensor) -> Bucket | None:
        """The bucket whose memory ``tensor`` is a view of."""
        if tensor.layout is not torch.strided:
            return None
        return self._by_storage.get(tensor.untyped_storage()._cdata)

    def saved_weights(self) -> AbstractContextManager[Any]:
        """Context in which weights that autograd saves for backward are unsharded when backward needs them."""
        return torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> Tensor | tuple[Tensor, Bucket]:
        bucket = self.bucket_of(tensor)
        return tensor if bucket is None else (tensor, bucket)

    def _unpack(self, packed: Tensor | tuple[Tensor, Bucket]) -> Tensor:
        if not isinstance(packed, tuple):
            return packed
        tensor, bucket = packed
        if not bucket.is_unsharded:
            self._on_access(bucket, False)
        return tensor


class InterceptedParameters(dict[str, "nn.Parameter | None"]):
    """A module's own parameters by name; reports each lookup outside the module's forward."""

    def __init__(
        self,
        parameters: dict[str, nn.Parameter | None],
        by_parameter: dict[int, Bucket],
        on_access: OnAccess,
    ) -> None:
        super().__init__(parameters)
        self._buckets = {
            name: by_parameter[id(parameter)] for name, parameter in parameters.items() if id(parameter) in by_parameter
        }
        self._on_access = on_access

    def __getitem__(self, name: str) -> nn.Parameter | None:
        bucket = self._buckets.get(name)
        if bucket is not None and not bucket.in_forward:
            self._on_access(bucket, True)
        return super().__getitem__(name)

    def items(self) -> Any:
        self._access_all()
        return super().items()

    def values(self) -> Any:
        self._access_all()
        return super().values()

    def __reduce__(self) -> Any:
        """Copies and files of a module have plain parameters with their values, and no part of the engine."""
        return dict, (dict(self.items()),)

    def _access_all(self) -> None:
        for bucket in self._buckets.values():
            if not bucket.in_forward:
                self._on_access(bucket, True)

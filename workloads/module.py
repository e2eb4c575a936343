"""A person's own model, named on the command line: ``workload=module:path.to:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data, is_workload, resolve
from workloads.base import Batch, Workload, WorkloadError, WorkloadInfo, check_choice, check_count, reseeded


@dataclass(frozen=True)
class Feed:
    """What a module is given and what its output is held against."""

    input: tuple[int, ...] = (3, 32, 32)
    input_kind: str = "float"
    vocabulary: int = 256
    loss: str = "cross_entropy"
    classes: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.input, tuple) or not self.input:
            raise WorkloadError(f"module: input={self.input!r} is not valid; valid: a list of sizes, as in [3, 32, 32]")
        for size in self.input:
            check_count("module", "input", size)
        check_choice("module", "input_kind", self.input_kind, ("float", "tokens"))
        check_count("module", "vocabulary", self.vocabulary)
        check_choice("module", "loss", self.loss, ("cross_entropy", "mse", "output"))
        check_count("module", "classes", self.classes)
        if self.input_kind == "tokens" and (len(self.input) != 1 or self.loss == "mse"):
            raise WorkloadError(
                f"module: input_kind=tokens with input={list(self.input)} and loss={self.loss} is not valid; "
                "valid: input=[LENGTH] and loss=cross_entropy or output"
            )

    def source(self, seed: int) -> data.Source:
        if self.input_kind == "tokens":
            return data.tokens(seed, vocabulary=self.vocabulary, length=self.input[0])
        return data.arrays(seed, self.input, classes=self.classes)


def load(
    *,
    seed: int,
    data_dir: str | None,
    path: str,
    kwargs: dict[str, Any] | None = None,
    input: list[int] | tuple[int, ...] = Feed.input,
    input_kind: str = Feed.input_kind,
    vocabulary: int = Feed.vocabulary,
    loss: str = Feed.loss,
    classes: int = Feed.classes,
) -> Workload:
    """What the factory at ``path`` (``module:attribute``) returns: a workload as it is, or a module that is fed.

    The factory is called with ``kwargs``, and with ``seed`` and ``data_dir`` where it has parameters of these names.
    The other options say how a module is fed (conf/workload/module.yaml); a workload brings its own data and loss.
    """
    feed = Feed(tuple(input) if isinstance(input, list) else input, input_kind, vocabulary, loss, classes)
    if not isinstance(kwargs, dict | None):
        raise WorkloadError(f"module: kwargs={kwargs!r} is not valid; valid: {{NAME: VALUE, ...}}, null")
    make = _bound(path, {"seed": seed, "data_dir": data_dir}, kwargs or {})
    with reseeded(seed):
        made = make()
    if is_workload(made):
        if feed != Feed():
            raise WorkloadError(
                f"workload.path={path} returned a workload, which has its own data and loss; "
                "valid: input, input_kind, vocabulary, loss and classes as they are in conf/workload/module.yaml"
            )
        workload: Workload = made
        return workload
    if not isinstance(made, nn.Module):
        raise WorkloadError(
            f"workload.path={path} returned a {type(made).__name__}; "
            "valid: an nn.Module, or an object with info, build, units, batch and loss (workloads.base.Workload)"
        )
    return UserModule(path.rpartition(":")[2], make, feed, seed)


def _bound(path: str, offered: dict[str, Any], kwargs: dict[str, Any]) -> Callable[[], Any]:
    """The factory at ``path`` with its arguments. Raises WorkloadError if it cannot be called with them."""
    make = resolve(path, f"workload.path={path}")
    if isinstance(make, nn.Module):
        raise WorkloadError(
            f"workload.path={path} is a built module; valid: a class or function that returns a new one"
        )
    signature = inspect.signature(make)
    arguments = {name: value for name, value in offered.items() if name in signature.parameters} | kwargs
    if "data_dir" not in signature.parameters:
        data.refuse_data_dir(f"workload.path={path}", offered["data_dir"])
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise WorkloadError(
            f"workload.path={path} cannot be called with workload.kwargs={kwargs} ({error}); it takes {signature}"
        ) from error
    return partial(make, **arguments)


class UserModule:
    """A module on fixed synthetic data.

    - ``cross_entropy``: logits (n, classes) against one label a sample, or, for tokens, logits (n, length, vocabulary)
      against the next tokens.
    - ``mse``: all outputs of a sample against its label as a number from 0 to 1.
    - ``output``: the module returns its loss, the mean over the samples of its inputs.
    """

    def __init__(self, name: str, make: Callable[[], Any], feed: Feed, seed: int) -> None:
        self._make = make
        self._feed = feed
        self._seed = seed
        self._source = feed.source(seed)
        tokens = feed.input_kind == "tokens"
        self.info = WorkloadInfo(
            name,
            unit="token" if tokens else "sample",
            units_per_sample=feed.input[0] if tokens else 1,
            data=self._source.info,
        )

    def build(self) -> nn.Module:
        with reseeded(self._seed):
            module: nn.Module = self._make()
        return module

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The children of the largest list of layers, else of the module; those without parameters are left out.

        They are in the order in which they were registered, which should be that of forward.
        """
        lists = [_layers(part) for part in module.modules() if isinstance(part, nn.ModuleList | nn.Sequential)]
        return max((layers for layers in lists if len(layers) > 1), key=_size, default=_layers(module))

    def batch(self, indices: Sequence[int]) -> Batch:
        batch = self._source.batch(indices)
        return batch[:1] if self._feed.loss == "output" else batch

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        inputs, *targets = batch
        output = module(inputs)
        if not isinstance(output, Tensor):
            raise self._mismatch(f"a {type(output).__name__}", "a tensor")
        output = output.float()
        if self._feed.loss == "output":
            if output.shape != ():
                raise self._mismatch(f"the shape {tuple(output.shape)}", "a scalar")
            return output
        if self._feed.loss == "mse":
            numbers = targets[0] / self._feed.classes
            if output.shape[:1] != (numbers.numel(),):
                raise self._mismatch(f"the shape {tuple(output.shape)}", f"({numbers.numel()}, ...)")
            return F.mse_loss(output, numbers.view(-1, *[1] * (output.dim() - 1)).expand_as(output))
        classes = self._feed.vocabulary if self._feed.input_kind == "tokens" else self._feed.classes
        if output.shape[:-1] != targets[0].shape or output.shape[-1] < classes:
            wanted = ", ".join(map(str, (*targets[0].shape, classes)))
            raise self._mismatch(f"the shape {tuple(output.shape)}", f"({wanted}), or another workload.loss")
        return F.cross_entropy(output.flatten(0, -2), targets[0].flatten())

    def _mismatch(self, returned: str, wanted: str) -> WorkloadError:
        return WorkloadError(
            f"{self.info.name}: the module returned {returned}; valid for workload.loss={self._feed.loss}: {wanted}"
        )


def _layers(module: nn.Module) -> list[nn.Module]:
    """The children that have parameters and a forward of their own."""
    return [
        child
        for child in module.children()
        if type(child).forward is not nn.Module.forward and any(True for _ in child.parameters())
    ]


def _size(layers: list[nn.Module]) -> int:
    return sum(weight.numel() for layer in layers for weight in layer.parameters())

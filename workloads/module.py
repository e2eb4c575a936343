"""A person's own model, named on the command line: ``workload=module:path.to:factory``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data, files, is_workload, resolve
from workloads.base import (
    Batch,
    Workload,
    WorkloadError,
    WorkloadInfo,
    check_choice,
    check_count,
    check_mapping,
    rejections,
    reseeded,
)
from workloads.units import LossCalls, default_units, named_units

TARGETS = ("targets", "labels")
"""Parameters of a forward that returns its loss, by which it takes the targets."""
LOSSES = ("cross_entropy", "mse", "output", "sum")
OWN_LOSS = ("output", "sum")
"""Those that the module computes."""


@dataclass(frozen=True)
class Feed:
    """The inputs of a module and the targets of its output."""

    input: tuple[int, ...] = (3, 32, 32)
    input_kind: str = "float"
    vocabulary: int = 256
    loss: str = "cross_entropy"
    loss_weights: dict[str, float] | None = None
    classes: int = 10
    units: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.input, tuple) or not self.input:
            raise WorkloadError(f"module: input={self.input!r} is not valid; valid: a list of sizes, as in [3, 32, 32]")
        for size in self.input:
            check_count("module", "input", size)
        check_choice("module", "input_kind", self.input_kind, ("float", "tokens"))
        check_count("module", "vocabulary", self.vocabulary)
        check_choice("module", "loss", self.loss, LOSSES)
        check_weights(self.loss, self.loss_weights)
        check_count("module", "classes", self.classes)
        named = self.units is None or (isinstance(self.units, tuple) and self.units)
        if not named or not all(isinstance(name, str) and name for name in self.units or ()):
            raise WorkloadError(
                f"module: units={self.units!r} is not valid; valid: null, a list of classes or patterns of names, "
                "as in [Bottleneck] or ['encoder.layers.*']"
            )
        if self.input_kind == "tokens" and (len(self.input) != 1 or self.loss == "mse"):
            raise WorkloadError(
                f"module: input_kind=tokens with input={list(self.input)} and loss={self.loss} is not valid; "
                "valid: input=[LENGTH] and loss=cross_entropy, output or sum"
            )

    def source(self, seed: int, data_dir: str | None = None) -> data.DataSource:
        if self.input_kind == "tokens":
            return files.tokens(seed, data_dir, vocabulary=self.vocabulary, length=self.input[0])
        return files.images_or(
            lambda: data.arrays(seed, self.input, classes=self.classes),
            *(seed, data_dir, self.input),
            classes=self.classes,
            of="a module",
        )


def load(
    *,
    seed: int,
    data_dir: str | None,
    path: str,
    kwargs: dict[str, Any] | None = None,
    input: list[int] | tuple[int, ...] = Feed.input,
    sequence_length: int | None = None,
    input_kind: str = Feed.input_kind,
    vocabulary: int = Feed.vocabulary,
    loss: str = Feed.loss,
    loss_weights: dict[str, float] | None = None,
    classes: int = Feed.classes,
    units: list[str] | tuple[str, ...] | None = Feed.units,
) -> Workload:
    """Calls the factory at ``path`` (``module:attribute``): its result is a workload, or a module to wrap.

    The factory is called with ``kwargs``, and with ``seed`` and ``data_dir`` where it has parameters of these names. A
    module whose factory has no ``data_dir`` is fed from that folder: images, or tokens.
    The other options say how a module is fed (conf/workload/module.yaml); a workload brings its own data and loss.
    """
    names = tuple(units) if isinstance(units, list) else units
    if sequence_length is not None:
        input, input_kind = [sequence_length], "tokens"
    size = tuple(input) if isinstance(input, list) else input
    if isinstance(loss_weights, dict):  # positions are numbers in YAML
        loss_weights = {str(name): weight for name, weight in loss_weights.items()}
    feed = Feed(size, input_kind, vocabulary, loss, loss_weights, classes, names)
    check_mapping("module", "kwargs", kwargs)
    make = _bound(path, {"seed": seed, "data_dir": data_dir}, kwargs or {})
    own_files = "data_dir" in make.keywords
    with reseeded(seed), rejected_arguments(path, kwargs or {}):
        made = make()
    if is_workload(made):
        if not own_files:
            data.reject_data_dir(f"workload.path={path}", data_dir)
        if feed != Feed():
            raise WorkloadError(
                f"workload.path={path} returned a workload, which has its own data and loss; "
                "valid: input, input_kind, vocabulary, loss, loss_weights, classes and units as they are in "
                "conf/workload/module.yaml"
            )
        workload: Workload = made
        return workload
    if not isinstance(made, nn.Module):
        raise WorkloadError(
            f"workload.path={path} returned a {type(made).__name__}; "
            "valid: an nn.Module, or an object with info, build, units, batch and loss (workloads.base.Workload)"
        )
    takes = signature_of(made.forward).parameters if loss in OWN_LOSS else {}
    targets = next((name for name in TARGETS if name in takes), None)
    source = feed.source(seed, None if own_files else data_dir)
    return UserModule(path.rpartition(":")[2].replace(".", "_"), make, feed, seed, targets, source)


def rejected_arguments(path: str, kwargs: dict[str, Any]) -> AbstractContextManager[None]:
    """Blames ``workload.kwargs``, if there are any, for what a factory raises; without them its own code is wrong."""
    settings = f"workload.path={path} with workload.kwargs={kwargs}"
    return rejections(settings, f"valid: arguments that {path} takes", with_line=True) if kwargs else nullcontext()


def _bound(path: str, offered: dict[str, Any], kwargs: dict[str, Any]) -> partial[Any]:
    """The factory at ``path`` with its arguments. Raises WorkloadError if it cannot be called with them."""
    make = resolve(path, f"workload.path={path}")
    if isinstance(make, nn.Module):
        raise WorkloadError(
            f"workload.path={path} is a built module; valid: a class or function that returns a new one"
        )
    signature = signature_of(make)
    arguments = {name: value for name, value in offered.items() if name in signature.parameters} | kwargs
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise WorkloadError(
            f"workload.path={path} cannot be called with workload.kwargs={kwargs} ({error}); it takes {signature}"
        ) from error
    return partial(make, **arguments)


def signature_of(make: Callable[..., Any]) -> inspect.Signature:
    """The parameters of ``make``; any for a builtin without a signature."""
    try:
        return inspect.signature(make)
    except ValueError:
        return inspect.signature(lambda **_: None)


class UserModule:
    """A module on the samples of ``source`` (None: fixed synthetic ones).

    ``targets`` is the parameter of forward that takes them, if it has one.

    - ``cross_entropy``: logits (n, classes) against one label a sample, or, for tokens, logits (n, length, vocabulary)
      against the next tokens. An output with ``logits`` (an attribute or a key) is taken by them.
    - ``mse``: all outputs of a sample against its label as a number from 0 to 1.
    - ``output``: the module returns its loss, the mean over the samples of its inputs: a scalar, a tuple with one, or
      an object with ``loss`` (an attribute or a key). Its forward is given ``targets`` (labels, or the next tokens) or
      ``labels`` (labels, or the tokens themselves, which transformers shifts) if it has a parameter of that name.
    - ``sum``: the module returns several losses, as a dict, a tuple or an object; the loss is their sum. Its forward is
      given targets as for ``output``.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        feed: Feed,
        seed: int,
        targets: str | None = None,
        source: data.DataSource | None = None,
    ) -> None:
        self._make = make
        self._feed = feed
        self._seed = seed
        self._source = source or feed.source(seed)
        self._calls = LossCalls(self)
        self._targets = targets
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
            if any(isinstance(weight, nn.UninitializedParameter) for weight in module.parameters()):
                self._initialize(module)
        return module

    def _initialize(self, module: nn.Module) -> None:
        """Gives lazy modules their shapes: calls ``module`` once, in evaluation so that no statistics move."""
        training = {part: part.training for part in module.modules()}
        with torch.no_grad():
            self.loss(module.eval(), self.batch(range(2)))
        for part, was in training.items():
            part.training = was

    def units(self, module: nn.Module) -> list[nn.Module]:
        """Those that ``workload.units`` names, else blocks of at most a quarter of the module (``workloads.units``)."""
        calls = self._calls.of(module)
        return (
            default_units(module, calls) if self._feed.units is None else named_units(module, self._feed.units, calls)
        )

    def batch(self, indices: Sequence[int]) -> Batch:
        batch = self._source.batch(indices)
        return batch[:1] if self._feed.loss in OWN_LOSS and not self._targets else batch

    def write_files(self, folder: Path) -> bool:
        """Writes its samples as files that it reads with ``data_dir=folder``; False if it reads none."""
        return isinstance(self._source, data.Bank) and self._source.write(folder)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        if self._feed.loss in OWN_LOSS:
            output = module(batch[0], **self._target_arguments(batch))
            return self._own_loss(output) if self._feed.loss == "output" else self._sum(output)
        inputs, targets = batch
        output = part_of(module(inputs), "logits")
        if not isinstance(output, Tensor):
            raise self._mismatch(f"a {type(output).__name__}", "a tensor, or an object with logits")
        output = output.float()
        if self._feed.loss == "mse":
            numbers = targets / self._feed.classes
            if output.shape[:1] != (numbers.numel(),):
                raise self._mismatch(f"the shape {tuple(output.shape)}", f"({numbers.numel()}, ...)")
            return F.mse_loss(output, numbers.view(-1, *[1] * (output.dim() - 1)).expand_as(output))
        classes = self._feed.vocabulary if self._feed.input_kind == "tokens" else self._feed.classes
        if output.shape[:-1] != targets.shape or output.shape[-1] < classes:
            wanted = ", ".join(map(str, (*targets.shape, classes)))
            raise self._mismatch(f"the shape {tuple(output.shape)}", f"({wanted}), or another workload.loss")
        return F.cross_entropy(output.flatten(0, -2), targets.flatten())

    def _target_arguments(self, batch: Batch) -> dict[str, Tensor]:
        """The targets, under the name of the parameter that the module's forward has for them."""
        if self._targets is None:
            return {}
        shifts = self._targets == "labels" and self._feed.input_kind == "tokens"
        return {self._targets: batch[0 if shifts else 1]}

    def _own_loss(self, output: object) -> Tensor:
        loss = part_of(output, "loss")
        if isinstance(loss, tuple | list):
            scalars = [entry for entry in loss if isinstance(entry, Tensor) and entry.shape == ()]
            loss = scalars[0] if len(scalars) == 1 else loss
        if not isinstance(loss, Tensor):
            what = "loss=None" if loss is None else f"a {type(loss).__name__}"
            several = "; workload.loss=sum adds several up" if len(scalars_of(loss)) > 1 else ""
            raise self._mismatch(what, f"a scalar, a tuple with one scalar, an object or a dict with loss{several}")
        if loss.shape != ():
            raise self._mismatch(f"the shape {tuple(loss.shape)}", "a scalar")
        return loss.float()

    def _sum(self, output: object) -> Tensor:
        """The sum of the losses in ``output``: of those with a weight, times it; without weights, of all scalars."""
        losses = scalars_of(output)
        weights = self._feed.loss_weights or dict.fromkeys(losses, 1.0)
        missing = [name for name in weights if name not in losses]
        if missing or not losses:
            what = f"no loss {missing[0]}" if missing else f"a {type(output).__name__} without a scalar"
            scalars = "a dict, a tuple or an object of scalars"
            raise self._mismatch(what, f"workload.loss_weights of {', '.join(losses)}" if losses else scalars)
        return torch.stack([losses[name].float() * weight for name, weight in weights.items()]).sum()

    def _mismatch(self, returned: str, wanted: str) -> WorkloadError:
        return WorkloadError(
            f"{self.info.name}: the module returned {returned}; valid for workload.loss={self._feed.loss}: {wanted}"
        )


def check_weights(loss: str, weights: object) -> None:
    """Raises WorkloadError for weights that are none, or of a loss that has no parts."""
    check_mapping("module", "loss_weights", weights)
    numbers = list(weights.values()) if isinstance(weights, dict) else []
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in numbers):
        raise WorkloadError(f"module: loss_weights={weights} is not valid; valid: {{NAME: NUMBER, ...}}, null")
    if weights and loss != "sum":
        raise WorkloadError(f"module: loss_weights has no effect with loss={loss}; valid: null, loss=sum")


def scalars_of(output: Any) -> dict[str, Tensor]:
    """The floating-point scalars of a dict, a tuple or an object, by key, position (``0``) or attribute."""
    if isinstance(output, Tensor):
        parts: dict[Any, Any] = {"0": output}
    elif isinstance(output, Mapping):
        parts = dict(output)
    elif isinstance(output, tuple | list) and not hasattr(output, "_fields"):
        parts = dict(enumerate(output))
    else:
        parts = output._asdict() if hasattr(output, "_asdict") else dict(getattr(output, "__dict__", {}))
    return {
        str(name): part
        for name, part in parts.items()
        if isinstance(part, Tensor) and part.shape == () and part.is_floating_point()
    }


def part_of(output: Any, name: str) -> Any:
    """The attribute or the key ``name`` of what a module returned, else all of it."""
    if isinstance(output, Mapping) and name in output:
        return output[name]
    return output if isinstance(output, Tensor) else getattr(output, name, output)

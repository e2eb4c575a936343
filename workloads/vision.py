"""Image classifiers by the names that timm and torchvision give them: ``workload=timm:NAME``, ``torchvision:NAME``.

Nothing is downloaded: weights are drawn from the seed.
"""

from __future__ import annotations

import difflib
from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data, files
from workloads.base import WorkloadError, check_count, check_mapping, rejections
from workloads.extras import require
from workloads.supervised import Supervised
from workloads.units import LossCalls, default_units, named_units

IMAGENET = (3, 224, 224)
AUXILIARY = 0.3
"""Weight of the loss of a classifier in the middle of a model (Szegedy et al., Going Deeper with Convolutions)."""


class Classifier(Supervised):
    """A classifier on fixed synthetic images of its own input size, or on those of ``data_dir``.

    The loss is the cross-entropy, and ``AUXILIARY`` times that of each further output. ``input_size`` is channels,
    height and width; null: the model's own. ``kwargs`` are arguments of the model; ``units`` are classes or patterns
    of names, null: blocks of at most a quarter of the module.
    """

    library = ""
    size_argument = ""
    """The argument by which models with positions are told their input size."""

    def __init__(
        self,
        *,
        seed: int,
        data_dir: str | None,
        model: str | None = None,
        input_size: list[int] | None = None,
        classes: int = 1000,
        kwargs: dict[str, Any] | None = None,
        units: list[str] | None = None,
    ) -> None:
        check_count(self.library, "classes", classes)
        self._classes, self._unit_names, self._calls = classes, units, LossCalls(self)
        self._model = self._checked_model(model)
        check_mapping(self.library, "kwargs", kwargs)
        self._kwargs = kwargs or {}
        self._resized = input_size is not None
        self._shape = self._checked_size(input_size) if input_size is not None else self.own_size()
        source = files.images_or(
            lambda: data.arrays(seed, self._shape, classes=classes),
            *(seed, data_dir, self._shape),
            classes=classes,
            of=f"{self.library}:{model}",
        )
        super().__init__(f"{self.library}_{model}", seed, source)

    def _checked_model(self, model: object) -> str:
        if not isinstance(model, str) or not model:
            raise WorkloadError(f"{self.library}: model is not set; valid: workload={self.library}:NAME")
        names = self.names()
        if model not in names:
            near = difflib.get_close_matches(model, names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"valid: {len(names)} names such as {names[0]}"
            raise WorkloadError(f"{self.library}: {model} is no classifier of {self.library}; {hint}")
        return model

    def _checked_size(self, size: object) -> tuple[int, ...]:
        if not isinstance(size, list | tuple) or len(size) != 3:
            raise WorkloadError(f"{self.library}: input_size={size!r} is not valid; valid: [3, 224, 224] or the like")
        for entry in size:
            check_count(self.library, "input_size", entry)
        return tuple(size)

    @abstractmethod
    def names(self) -> list[str]:
        """The classifiers of the library."""

    @abstractmethod
    def own_size(self) -> tuple[int, ...]:
        """Channels, height and width that the model was made for."""

    @abstractmethod
    def make(self, **arguments: Any) -> nn.Module:
        """The model with new weights."""

    def network(self) -> nn.Module:
        resized = {self.size_argument: self._shape[1]} if self._resized else {}
        with rejections(*self._settings()):
            try:
                return self.make(**resized | self._kwargs)
            except TypeError:
                if not resized:
                    raise
                return self.make(**self._kwargs)  # it has no positions, and takes any size

    def _settings(self) -> tuple[str, str]:
        """The settings that the model is built with, and what to do if it rejects them."""
        shape = [f"workload.input_size={list(self._shape)}"] if self._resized else []
        kwargs = [f"workload.kwargs={self._kwargs}"] if self._kwargs else []
        named = f" with {' and '.join(shape + kwargs)}" if shape or kwargs else ""
        return f"{self.library}: {self._model}{named}", "valid: values that the model takes; null: its own"

    def units(self, module: nn.Module) -> list[nn.Module]:
        calls = self._calls.of(module)
        return named_units(module, self._unit_names, calls) if self._unit_names else default_units(module, calls)

    def loss(self, module: nn.Module, batch: Any) -> Tensor:
        images, labels = batch
        output = module(images)
        first, *others = output if isinstance(output, tuple | list) else (output,)
        loss = F.cross_entropy(first.float(), labels)
        for other in filter(torch.is_tensor, others):
            loss = loss + AUXILIARY * F.cross_entropy(other.float(), labels)
        return loss


class Timm(Classifier):
    """A classifier of timm."""

    library = "timm"
    size_argument = "img_size"

    def names(self) -> list[str]:
        names: list[str] = require("timm", "timm").list_models()
        return names

    def own_size(self) -> tuple[int, ...]:
        made_for = require("timm", "timm.models").get_pretrained_cfg(self._model)
        return tuple(made_for.input_size) if made_for else IMAGENET

    def make(self, **arguments: Any) -> nn.Module:
        timm = require("timm", "timm")
        module: nn.Module = timm.create_model(
            self._model, pretrained=False, num_classes=self._classes, in_chans=self._shape[0], **arguments
        )
        return module


class Torchvision(Classifier):
    """A classifier of torchvision."""

    library = "torchvision"
    size_argument = "image_size"

    def names(self) -> list[str]:
        from torchvision import models

        return models.list_models(module=models)  # type: ignore[no-any-return]

    def own_size(self) -> tuple[int, ...]:
        from torchvision import models

        preset = models.get_model_weights(self._model).DEFAULT.transforms
        size = getattr(preset, "keywords", {}).get("crop_size", IMAGENET[1])
        return (3, size, size)

    def make(self, **arguments: Any) -> nn.Module:
        from torchvision import models

        module: nn.Module = models.get_model(self._model, weights=None, num_classes=self._classes, **arguments)
        return module

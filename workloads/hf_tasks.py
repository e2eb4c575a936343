"""What a model of transformers is trained on: the class that has the loss, the arguments of its forward, the samples.

task         losses, transformers' own                                    samples
causal       the next token                                               tokens
masked       masked tokens                                                tokens
seq2seq      the next token of the second sequence                        tokens
pretraining  masked tokens, and whether the second half follows (two)     tokens
image        the class of an image                                        images
ctc          labels of a recording, without their times                   audio
speech       the next token of a transcript                               audio
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workloads import data, files
from workloads.base import Batch, WorkloadError
from workloads.extras import require

MASKED = 0.15
"""Share of the positions of a sample that a masked language model predicts."""
IGNORED = -100
"""Label of a position that no loss counts, as transformers has it."""
PAIR_LABELS = ("next_sentence_label", "sentence_order_label")
"""Names that forwards have for the label of two sentences: 0 where the second follows the first, else 1."""
FRAMES_PER_LABEL = 4
"""Of synthetic recordings."""
IMAGE_SIZE = 224


@dataclass(frozen=True)
class Request:
    """The samples that a person asks for."""

    config: Any
    seed: int
    data_dir: str | None
    length: int
    """Of a sequence: tokens; of a recording: frames of its features."""


@dataclass(frozen=True)
class Task:
    """One kind of training."""

    auto: str
    """The class of transformers that chooses a model's head and loss."""
    types: str
    """The model types that have it: the name of a mapping in ``transformers.models.auto.modeling_auto``."""
    arguments: tuple[str, ...]
    """Parameters of forward, one for each column of a batch."""
    source: Callable[[Request], Columns | SentencePairs]
    unit: str = "token"

    def has(self, config: Any) -> bool:
        """Whether transformers has a class of this task for the model type."""
        return config.model_type in mapping(self.types)

    def model_class(self) -> Any:
        return getattr(require("hf", "transformers"), self.auto)


class Columns:
    """The samples of a source, as ``change`` makes them of its columns."""

    def __init__(self, source: data.DataSource, change: Callable[..., Batch]) -> None:
        self._source, self._change = source, change
        self.info = source.info

    def batch(self, indices: Sequence[int]) -> Batch:
        return self._change(*self._source.batch(indices))

    def write(self, folder: Path) -> bool:
        """Writes the samples as files that its task reads; False if it reads none."""
        return isinstance(self._source, data.Bank) and self._source.write(folder)


class SentencePairs:
    """Masked tokens, segments (0 and 1), labels (each n, length), and the label of each pair (n).

    The second half of a sample is that of another one where its label is 1. The last id of the vocabulary masks.
    """

    def __init__(self, request: Request) -> None:
        self._mask, self._length = vocabulary_of(request.config) - 1, request.length
        self._tokens = files.tokens(request.seed, request.data_dir, vocabulary=self._mask, length=request.length)
        drawn = data.generator_of(request.seed)
        order = torch.rand(data.SAMPLES, request.length, generator=drawn).argsort(dim=1)
        self._masked = order[:, : max(1, round(MASKED * request.length))]
        self._is_other = torch.randint(2, (data.SAMPLES,), generator=drawn)
        self.info = self._tokens.info

    def batch(self, indices: Sequence[int]) -> Batch:
        half, rows = self._length // 2, [index % data.SAMPLES for index in indices]
        whole, is_other = self._tokens.batch(indices)[0].clone(), self._is_other[rows]
        others = self._tokens.batch([index + 1 for index in indices])[0]
        whole[:, half:] = torch.where(is_other.bool()[:, None], others[:, half:], whole[:, half:])
        labels = torch.full_like(whole, IGNORED)
        positions = self._masked[rows]
        labels.scatter_(1, positions, whole.gather(1, positions))
        segments = (torch.arange(self._length) >= half).long().expand_as(whole).clone()
        return whole.scatter(1, positions, self._mask), segments, labels, is_other

    def write(self, folder: Path) -> bool:
        """Writes the tokens as a file."""
        return isinstance(self._tokens, data.Bank) and self._tokens.write(folder)


def causal(request: Request) -> Columns:
    """Tokens and labels, the same, each (n, length): the model shifts them."""
    return Columns(_tokens(request), lambda inputs, _: (inputs, inputs))


def seq2seq(request: Request) -> Columns:
    """Tokens and labels, each (n, length)."""
    return Columns(_tokens(request), lambda inputs, targets: (inputs, targets))


def masked(request: Request) -> Columns:
    """Tokens with masks and labels, each (n, length)."""
    vocabulary, count = vocabulary_of(request.config), max(1, round(MASKED * request.length))
    options = {"vocabulary": vocabulary, "length": request.length, "masked": count}

    def labeled(inputs: Tensor, positions: Tensor, tokens: Tensor) -> Batch:
        return inputs, torch.full_like(inputs, IGNORED).scatter(1, positions, tokens)

    return Columns(files.masked_tokens(request.seed, request.data_dir, **options), labeled)


def _tokens(request: Request) -> data.DataSource:
    vocabulary = vocabulary_of(request.config)
    return files.tokens(request.seed, request.data_dir, vocabulary=vocabulary, length=request.length)


def images(request: Request) -> Columns:
    """Images (n, channels, height, width), standardised, and labels (n)."""
    shape, classes = image_shape(request.config), int(request.config.num_labels)
    source = files.images_or(
        lambda: data.arrays(request.seed, shape, classes=classes),
        *(request.seed, request.data_dir, shape),
        classes=classes,
        of=f"hf:{request.config.model_type}",
    )
    return Columns(source, lambda inputs, labels: (inputs, labels))


def recordings(request: Request) -> Columns:
    """Waves (n, samples) that the convolutions make ``length`` frames of, and labels (n, length //
    ``FRAMES_PER_LABEL``); label 0 is CTC's blank."""
    config = request.config
    data.reject_data_dir(f"hf:{config.model_type}", request.data_dir)
    strides, kernels = getattr(config, "conv_stride", None), getattr(config, "conv_kernel", None)
    if not strides or not kernels:
        raise WorkloadError(
            f"hf: {config.model_type} does not read waves, which task=ctc has; valid: wav2vec2, hubert or the like, or "
            "a model of your own (workload=module)"
        )
    samples = request.length
    for stride, kernel in zip(reversed(strides), reversed(kernels), strict=True):
        samples = (samples - 1) * stride + kernel
    each, count = FRAMES_PER_LABEL * prod(strides), max(1, request.length // FRAMES_PER_LABEL)
    made = ceil(samples / each) * each
    classes = vocabulary_of(config) - 1
    source = data.utterances(request.seed, frames=made, mels=1, stride=each, classes=classes)
    return Columns(source, lambda waves, labels: (waves[:, :samples, 0], labels[:, :count] + 1))


def transcripts(request: Request) -> Columns:
    """Features (n, bins, frames) and tokens (n, length)."""
    config = request.config
    data.reject_data_dir(f"hf:{config.model_type}", request.data_dir)
    bins, positions = getattr(config, "num_mel_bins", None), getattr(config, "max_source_positions", None)
    if config.model_type != "whisper" or not bins or not positions:
        raise WorkloadError(
            f"hf: the features that {config.model_type} reads are not known here; valid for task=speech: whisper, or a "
            "model of your own (workload=module)"
        )
    frames = 2 * positions
    classes = vocabulary_of(config)
    source = data.utterances(request.seed, frames=frames, mels=bins, stride=1, classes=classes)
    length = min(request.length, frames)
    return Columns(source, lambda features, labels: (features.transpose(1, 2).contiguous(), labels[:, :length]))


TASKS: dict[str, Task] = {
    "causal": Task("AutoModelForCausalLM", "CAUSAL_LM", ("input_ids", "labels"), causal),
    "masked": Task("AutoModelForMaskedLM", "MASKED_LM", ("input_ids", "labels"), masked),
    "seq2seq": Task("AutoModelForSeq2SeqLM", "SEQ_TO_SEQ_CAUSAL_LM", ("input_ids", "labels"), seq2seq),
    "pretraining": Task(
        *("AutoModelForPreTraining", "PRETRAINING", ("input_ids", "token_type_ids", "labels", "")),
        SentencePairs,
    ),
    "image": Task(
        *("AutoModelForImageClassification", "IMAGE_CLASSIFICATION", ("pixel_values", "labels"), images), unit="sample"
    ),
    "ctc": Task("AutoModelForCTC", "CTC", ("input_values", "labels"), recordings, unit="frame"),
    "speech": Task(
        *("AutoModelForSpeechSeq2Seq", "SPEECH_SEQ_2_SEQ", ("input_features", "labels"), transcripts), unit="frame"
    ),
}
FIRST = ("speech", "seq2seq", "masked", "causal", "image", "ctc")
"""Tasks in the order in which an architecture is taken to be made for them."""


def mapping(types: str) -> dict[str, Any]:
    """The names of classes by model type."""
    from transformers.models.auto import modeling_auto

    names: dict[str, Any] = getattr(modeling_auto, f"MODEL_FOR_{types}_MAPPING_NAMES")
    return names


def task_of(config: Any) -> str:
    """What the architecture is made for: as its configuration names it, else the first task that has its type."""
    architectures = getattr(config, "architectures", None) or ()
    named: tuple[str, ...] = (*FIRST, "pretraining") if pair_label(config) else FIRST
    for name in named:
        if mapping(TASKS[name].types).get(config.model_type) in architectures:
            return name
    encodes = bool(getattr(config, "is_encoder_decoder", False))
    for name in FIRST:
        if TASKS[name].has(config) and (name not in ("speech", "seq2seq") or encodes):
            return name
    raise WorkloadError(
        f"hf: {config.model_type} has none of the tasks {', '.join(TASKS)}; valid: a model type that has one, or a "
        "model of your own with its loss (workload=module)"
    )


def check_task(config: Any, task: str) -> None:
    """Raises WorkloadError for a model type without the task."""
    has = [name for name in TASKS if TASKS[name].has(config) and (name != "pretraining" or pair_label(config))]
    if task not in has:
        raise WorkloadError(f"hf: {config.model_type} has no task={task}; valid: {', '.join(has) or 'none'}")


def arguments(config: Any, task: str) -> tuple[str, ...]:
    """The parameters of forward, one for each column of a batch."""
    return tuple(name or str(pair_label(config)) for name in TASKS[task].arguments)


def pair_label(config: Any) -> str | None:
    """The name that the forward of a model of ``pretraining`` has for the label of two sentences, if it has one."""
    name = str(mapping(TASKS["pretraining"].types).get(config.model_type))
    model = getattr(require("hf", "transformers"), name, None)
    takes = inspect.signature(model.forward).parameters if model else {}
    return next((name for name in PAIR_LABELS if name in takes), None)


def units_per_sample(config: Any, task: str, length: int) -> int:
    """Tokens or frames of a sample; 1 for an image."""
    if task == "image":
        return 1
    if task == "speech":
        return 2 * int(config.max_source_positions)
    return 2 * length if task == "seq2seq" else length


def vocabulary_of(config: Any) -> int:
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        raise WorkloadError(f"hf: {config.model_type} has no vocab_size; valid: a language model")
    return size


def image_shape(config: Any) -> tuple[int, ...]:
    """Channels, height and width; 3 and ``IMAGE_SIZE`` where the configuration has none."""
    size = getattr(config, "image_size", None) or IMAGE_SIZE
    height, width = (size, size) if isinstance(size, int) else tuple(size)[-2:]
    return int(getattr(config, "num_channels", 3)), int(height), int(width)

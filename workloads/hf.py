"""Any architecture of Hugging Face transformers, built from its configuration: ``workload=hf:llama``.

Nothing is downloaded. Weights are drawn from the seed; samples are synthetic, or those of ``data_dir``: tokens of
``train.bin``, images of ``train/CLASS/``.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from workloads.base import (
    Batch,
    WorkloadError,
    WorkloadInfo,
    check_choice,
    check_count,
    check_mapping,
    first_line,
    rejections,
    reseeded,
)
from workloads.extras import require
from workloads.hf_tasks import TASKS, Request, arguments, check_task, task_of, units_per_sample
from workloads.units import LossCalls, block_units, named_units

SEQUENCE_LENGTH = 128
LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_target_positions")
"""Names that configurations have for the longest sequence."""
UNCACHED = {"use_cache": False}
"""Keys and values that generation would keep; a checkpointed forward would add them twice."""


class HF:
    """A model of transformers, with its own loss. Throughput counts tokens (of both sequences for seq2seq), images, or
    frames of a recording.

    ``model`` is a model type (``llama``), or a folder or ``config.json`` of a model. ``config`` overrides entries of
    its configuration. ``task`` is one of ``hf_tasks.TASKS``; null: what the architecture is made for. ``units`` are
    classes or patterns of names; null: the blocks.
    """

    def __init__(
        self,
        *,
        seed: int,
        data_dir: str | None,
        model: str | None = None,
        config: dict[str, Any] | None = None,
        sequence_length: int = SEQUENCE_LENGTH,
        task: str | None = None,
        units: list[str] | None = None,
    ) -> None:
        length = self._length = sequence_length
        check_count("hf", "sequence_length", length)
        check_choice("hf", "task", task, (None, *TASKS))
        self._seed, self._unit_names, self._calls = seed, units, LossCalls(self)
        self._overrides = config or {}
        self._config = configuration(model, self._overrides)
        self._task = task or task_of(self._config)
        check_task(self._config, self._task)
        if TASKS[self._task].unit == "token":
            check_length(self._config, length)
        self._arguments = arguments(self._config, self._task)
        self._source = TASKS[self._task].source(Request(self._config, seed, data_dir, length))
        units_of_a_sample = units_per_sample(self._config, self._task, length)
        self.info = WorkloadInfo(
            f"hf_{self._config.model_type}", TASKS[self._task].unit, units_of_a_sample, self._source.info
        )

    def build(self) -> nn.Module:
        config = f" with workload.config={self._overrides}" if self._overrides else ""
        asked, valid = f"hf: {self._config.model_type}{config}", "valid: entries that the model takes together"
        with reseeded(self._seed), rejections(asked, valid):
            module: nn.Module = TASKS[self._task].model_class().from_config(self._config)
        return module.float().train()

    def units(self, module: nn.Module) -> list[nn.Module]:
        """Those that ``workload.units`` names, else the blocks: entries of the outermost lists of modules."""
        calls = self._calls.of(module)
        return named_units(module, self._unit_names, calls) if self._unit_names else block_units(module, calls)

    def batch(self, indices: Sequence[int]) -> Batch:
        """The arguments of forward, each (n, ...); a label that no loss counts is -100."""
        return self._source.batch(indices)

    def write_files(self, folder: Path) -> bool:
        """Writes its samples as files that it reads with ``data_dir=folder``; False if it cannot."""
        return self._source.write(folder)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The model's own, which adds what else it is trained on (the balance of experts, the order of sentences)."""
        named = dict(zip(self._arguments, batch, strict=True))
        try:
            loss = module(**named).loss
        except WorkloadError:
            raise
        except (IndexError, TypeError, ValueError) as error:  # such as a position beyond a table
            what = f"workload.sequence_length={self._length} and workload.config={self._overrides}"
            raise WorkloadError(
                f"hf: the forward of {self._config.model_type} rejects a batch ({first_line(error)}) with {what}; "
                "valid: a length and entries that the model takes together"
            ) from error
        if not isinstance(loss, Tensor):
            raise WorkloadError(f"hf: {type(module).__name__} returned no loss; valid: an architecture with labels")
        return loss.float()


def configuration(model: str | None, overrides: dict[str, Any]) -> Any:
    """The transformers configuration of a model type, a folder or a file. Raises WorkloadError."""
    transformers = require("hf", "transformers")
    transformers.logging.set_verbosity_error()  # it warns about tokens of a tokenizer that nobody uses here
    if not isinstance(model, str) or not model:
        raise WorkloadError("hf: model is not set; valid: workload=hf:llama, workload=hf:path/to/config.json")
    check_mapping("hf", "config", overrides)
    try:
        if Path(model).exists():
            config = transformers.AutoConfig.from_pretrained(model, local_files_only=True, **overrides, **UNCACHED)
        elif model in transformers.CONFIG_MAPPING:
            config = transformers.AutoConfig.for_model(model, **overrides, **UNCACHED)
        else:
            raise WorkloadError(f"hf: {unknown(model, list(transformers.CONFIG_MAPPING.keys()))}")
    except WorkloadError:
        raise
    except Exception as error:  # each configuration class checks its own entries, in its own way
        raise WorkloadError(f"hf: the configuration of {model} is not valid: {first_line(error)}") from error
    reject_misspelt(config, overrides)
    if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = getattr(config, "pad_token_id", None) or 0
    fit_special_tokens(config, overrides)
    average_ctc(config, overrides)
    return config


def reject_misspelt(config: Any, overrides: dict[str, Any]) -> None:
    """Raises WorkloadError for an entry that neither the configuration's class has nor the model's code reads."""
    kind = type(config)
    entries = {*kind().to_dict(), *(("image_size",) if hasattr(config, "num_channels") else ())}
    for name in overrides:
        if name not in entries and not hasattr(kind, name) and not reads(kind, name):
            near = difflib.get_close_matches(name, entries, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise WorkloadError(f"hf: config.{name} is no entry of {kind.__name__}{hint}")


def reads(kind: type, name: str) -> bool:
    """Whether the code of a configuration's model reads an entry that the configuration does not declare."""
    try:
        module = importlib.import_module(kind.__module__.replace(".configuration_", ".modeling_"))
        code = inspect.getsource(module)
    except (ImportError, OSError):
        return False
    entry = re.escape(name)
    return re.search(rf'config, "{entry}"|config\.{entry}\b', code) is not None


def fit_special_tokens(config: Any, overrides: dict[str, Any]) -> None:
    """Sets ids of special tokens to 0 that are not in the vocabulary, as where ``overrides`` makes it smaller."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    for part in {id(part): part for part in (config, config.get_text_config())}.values():
        for name, value in list(part.to_dict().items()):
            is_id = name.endswith("_token_id") and isinstance(value, int) and name not in overrides
            if is_id and isinstance(size, int) and value >= size:
                setattr(part, name, 0)


def average_ctc(config: Any, overrides: dict[str, Any]) -> None:
    """Makes the loss of CTC the mean over samples, which ranks average. Raises WorkloadError for another reduction."""
    reduction = overrides.get("ctc_loss_reduction", "mean")
    if reduction != "mean":
        raise WorkloadError(
            f"hf: config.ctc_loss_reduction={reduction} is not valid: ranks average the mean loss of their samples; "
            "valid: mean"
        )
    if hasattr(config, "ctc_loss_reduction"):
        config.ctc_loss_reduction = reduction


def unknown(model: str, types: list[str]) -> str:
    """An error about a model type that transformers does not have."""
    near = difflib.get_close_matches(model, types, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{model} is no model type of transformers and no local path; {hint}valid: {len(types)} types such as llama"


def check_length(config: Any, length: int) -> None:
    """Raises WorkloadError for sequences that are longer than the position table."""
    limits = {name: getattr(config, name, None) for name in LENGTHS}
    for name, most in limits.items():
        if isinstance(most, int) and 0 < most < length:
            raise WorkloadError(
                f"hf: sequence_length={length} is more than {name}={most} of {config.model_type}; "
                f"valid: at most {most}, or workload.config={{{name}: {length}}}"
            )

"""Any architecture of Hugging Face transformers, built from its configuration: ``workload=hf:llama``.

Nothing is downloaded. Weights are drawn from the seed; tokens are synthetic, or those of ``data_dir/train.bin``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workloads import data, files
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
from workloads.units import LossCalls, block_units, named_units

SEQUENCE_LENGTH = 128
MASKED = 0.15
"""Share of the positions of a sample that a masked language model predicts."""
IGNORED = -100
"""Label of a position that no loss counts, as transformers has it."""
TASKS = {"causal": "AutoModelForCausalLM", "masked": "AutoModelForMaskedLM", "seq2seq": "AutoModelForSeq2SeqLM"}
"""What a model is trained on, and the class of transformers that chooses its head and loss."""
LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length")
"""Names that configurations have for the longest sequence."""
UNCACHED = {"use_cache": False}
"""Keys and values that generation would keep; a checkpointed forward would add them twice."""


class HF:
    """A language model of transformers, with its own loss. Throughput counts tokens; of both sequences for seq2seq.

    ``model`` is a model type (``llama``), or a folder or ``config.json`` of a model. ``config`` overrides entries of
    its configuration. ``task`` is causal, masked or seq2seq; null: what the architecture is made for. ``units`` are
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
        length = sequence_length
        check_count("hf", "sequence_length", length)
        check_choice("hf", "task", task, (None, *TASKS))
        self._seed, self._unit_names, self._calls = seed, units, LossCalls(self)
        self._overrides = config or {}
        self._config = configuration(model, self._overrides)
        self._task = task or task_of(self._config)
        check_length(self._config, length)
        self._source = self._tokens(data_dir, length)
        tokens = 2 * length if self._task == "seq2seq" else length
        self.info = WorkloadInfo(f"hf_{self._config.model_type}", "token", tokens, self._source.info)

    def _tokens(self, data_dir: str | None, length: int) -> data.DataSource:
        vocabulary = vocabulary_of(self._config)
        if self._task == "masked":
            masked = max(1, round(MASKED * length))
            return files.masked_tokens(self._seed, data_dir, vocabulary=vocabulary, length=length, masked=masked)
        return files.tokens(self._seed, data_dir, vocabulary=vocabulary, length=length)

    def build(self) -> nn.Module:
        transformers = require("hf", "transformers")
        kind = getattr(transformers, TASKS[self._task])
        config = f" with workload.config={self._overrides}" if self._overrides else ""
        asked, valid = f"hf: {self._config.model_type}{config}", "valid: entries that the model takes together"
        with reseeded(self._seed), rejections(asked, valid):
            module: nn.Module = kind.from_config(self._config)
        return module.float().train()

    def units(self, module: nn.Module) -> list[nn.Module]:
        """Those that ``workload.units`` names, else the blocks: entries of the outermost lists of modules."""
        calls = self._calls.of(module)
        return named_units(module, self._unit_names, calls) if self._unit_names else block_units(module, calls)

    def batch(self, indices: Sequence[int]) -> Batch:
        """Inputs and labels, each (n, length) token ids; a label that no loss counts is -100."""
        inputs, *others = self._source.batch(indices)
        if self._task == "masked":
            positions, tokens = others
            return inputs, torch.full_like(inputs, IGNORED).scatter(1, positions, tokens)
        return (inputs, inputs) if self._task == "causal" else (inputs, *others)

    def write_files(self, folder: Path) -> bool:
        """Writes its tokens as a file that it reads with ``data_dir=folder``; False if it cannot."""
        return isinstance(self._source, data.Bank) and self._source.write(folder)

    def loss(self, module: nn.Module, batch: Batch) -> Tensor:
        """The model's own, which adds what else it is trained on (the balance of experts)."""
        inputs, labels = batch
        loss = module(input_ids=inputs, labels=labels).loss
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
            return transformers.AutoConfig.from_pretrained(model, local_files_only=True, **overrides, **UNCACHED)
        if model not in transformers.CONFIG_MAPPING:
            raise WorkloadError(f"hf: {unknown(model, list(transformers.CONFIG_MAPPING.keys()))}")
        config = transformers.AutoConfig.for_model(model, **overrides, **UNCACHED)
    except WorkloadError:
        raise
    except Exception as error:  # each configuration class checks its own entries, in its own way
        raise WorkloadError(f"hf: the configuration of {model} is not valid: {first_line(error)}") from error
    if getattr(config, "is_encoder_decoder", False) and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = getattr(config, "pad_token_id", None) or 0
    misspelt = [name for name in overrides if name not in type(config)().to_dict() and not hasattr(type(config), name)]
    if misspelt:
        raise WorkloadError(f"hf: config.{misspelt[0]} is no entry of {type(config).__name__}")
    return config


def unknown(model: str, types: list[str]) -> str:
    """An error about a model type that transformers does not have."""
    import difflib

    near = difflib.get_close_matches(model, types, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{model} is no model type of transformers and no local path; {hint}valid: {len(types)} types such as llama"


def task_of(config: Any) -> str:
    """What the architecture is made for: as its configuration names it, else the first task that has its type."""
    from transformers.models.auto import modeling_auto

    has = {
        "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
        "masked": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    }
    for task, names in has.items():
        if names.get(config.model_type) in (getattr(config, "architectures", None) or ()):
            return task
    for task, names in has.items():
        if config.model_type in names and (task != "seq2seq" or getattr(config, "is_encoder_decoder", False)):
            return task
    raise WorkloadError(f"hf: {config.model_type} is no language model; valid: one for {', '.join(TASKS)}")


def vocabulary_of(config: Any) -> int:
    size = getattr(config.get_text_config(), "vocab_size", None)
    if not isinstance(size, int):
        raise WorkloadError(f"hf: {config.model_type} has no vocab_size; valid: a language model")
    return size


def check_length(config: Any, length: int) -> None:
    """Raises WorkloadError for sequences that are longer than the position table."""
    limits = {name: getattr(config, name, None) for name in LENGTHS}
    for name, most in limits.items():
        if isinstance(most, int) and 0 < most < length:
            raise WorkloadError(
                f"hf: sequence_length={length} is more than {name}={most} of {config.model_type}; "
                f"valid: at most {most}, or workload.config={{{name}: {length}}}"
            )

"""Language models of transformers by the name of their architecture."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from workloads import hf
from workloads.base import WorkloadError
from workloads.hf import HF

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 64,
}
ENCODER_DECODER = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "vocab_size": 64}


def made(model: str, config: dict[str, Any], **options: Any) -> HF:
    pytest.importorskip("transformers")
    return HF(seed=0, data_dir=None, model=model, config=config, sequence_length=16, **options)


@pytest.mark.parametrize(
    ("model", "config", "tokens", "units"),
    [
        ("llama", SMALL, 16, ["model.layers.0", "model.layers.1"]),
        ("bert", SMALL, 16, ["bert.encoder.layer.0", "bert.encoder.layer.1"]),
        ("t5", ENCODER_DECODER, 32, ["encoder.block.0", "encoder.block.1", "decoder.block.0", "decoder.block.1"]),
    ],
)
def test_causal_masked_and_sequence_to_sequence_models_have_their_own_loss_and_blocks(
    model: str, config: dict[str, Any], tokens: int, units: list[str]
) -> None:
    workload = made(model, config)
    module = workload.build()
    names = {id(part): name for name, part in module.named_modules()}
    assert [names[id(unit)] for unit in workload.units(module)] == units
    assert (workload.info.unit, workload.info.units_per_sample) == ("token", tokens)
    loss = workload.loss(module, workload.batch(range(2)))
    loss.backward()
    assert 3 < float(loss.detach()) < 6, "near log 64 for weights that know nothing"
    assert all(weight.grad is not None for weight in module.parameters())


def test_a_configuration_file_builds_the_same_model_as_its_name(tmp_path: Path) -> None:
    by_name = made("llama", SMALL).build()
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "llama"} | SMALL))
    from_file = made(str(file), {}).build()
    pairs = zip(by_name.parameters(), from_file.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("model", "config", "message"),
    [
        ("lama", {}, "did you mean llama?"),
        ("llama", {"hiden_size": 3}, "config.hiden_size is no entry of LlamaConfig"),
        ("llama", SMALL | {"max_position_embeddings": 8}, "sequence_length=16 is more than max_position_embeddings=8"),
        ("llama", {"hiden_size": 3}, "; did you mean hidden_size?"),
        ("llama", {"num_hidden": 3}, "config.num_hidden is no entry of LlamaConfig"),
        ("detr", {}, "detr has none of the tasks causal,"),
        ("wav2vec2", {"ctc_loss_reduction": "sum"}, "config.ctc_loss_reduction=sum is not valid: .*; valid: mean"),
        ("parakeet_ctc", {}, "parakeet_ctc does not read waves, which task=ctc has; valid: wav2vec2, hubert"),
    ],
)
def test_a_mistake_has_one_line(model: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkloadError, match=message.replace("?", r"\?")):
        made(model, config)


def test_a_task_that_the_architecture_lacks_is_rejected_with_those_that_it_has() -> None:
    with pytest.raises(WorkloadError, match=r"gpt2 has no task=masked; valid: causal$"):
        made("gpt2", {}, task="masked")
    with pytest.raises(WorkloadError, match=r"electra has no task=pretraining; valid: causal, masked$"):
        made("electra", SMALL, task="pretraining")


SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8, 8],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "apply_spec_augment": False,
}
WHISPER = {
    **{"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
    **{"encoder_attention_heads": 2, "decoder_attention_heads": 2, "vocab_size": 64, "num_mel_bins": 8},
    **{"max_source_positions": 24, "max_target_positions": 32},
}


@pytest.mark.parametrize(
    ("model", "config", "task", "inputs", "labels", "units"),
    [
        ("vit", SMALL | {"image_size": 16, "patch_size": 8, "num_labels": 5}, "image", (2, 3, 16, 16), (2,), 1),
        ("wav2vec2", SPEECH, "ctc", (2, 10 + 5 * (3 + 15 * 2 - 1)), (2, 4), 16),
        ("whisper", WHISPER, "speech", (2, 8, 48), (2, 16), 48),
    ],
)
def test_images_and_recordings_have_the_shapes_that_their_models_read(
    model: str, config: dict[str, Any], task: str, inputs: tuple[int, ...], labels: tuple[int, ...], units: int
) -> None:
    config = {name: value for name, value in config.items() if not (task == "image" and name == "vocab_size")}
    workload = made(model, config)
    batch, module = workload.batch(range(2)), workload.build()
    assert [tuple(part.shape) for part in batch] == [inputs, labels] and workload.info.units_per_sample == units
    loss = workload.loss(module, batch)
    loss.backward()
    assert float(loss.detach()) > 0 and torch.isfinite(loss.detach())
    if task == "ctc":
        assert module(batch[0]).logits.shape[1] == 16, "frames of sequence_length=16"
        module.eval()
        each = [workload.loss(module, workload.batch([index])).item() for index in range(2)]
        assert workload.loss(module, batch).item() == pytest.approx(sum(each) / 2, rel=1e-5), "the mean over samples"


def test_entries_that_do_not_fit_each_other_are_named_when_the_model_is_built() -> None:
    workload = made("bert", SMALL | {"num_attention_heads": 3})
    with pytest.raises(WorkloadError, match=r"hf: bert with workload.config=.*heads': 3.* cannot be built: .*16.*3"):
        workload.build()


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WorkloadError, match=r"needs transformers, .*; pip install 'ddp-zero-bench\[hf\]'"):
        hf.configuration("llama", {})

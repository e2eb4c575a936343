"""A module of one's own that returns several losses, and models of transformers that have them."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from workloads import Workload, WorkloadError, module
from workloads.hf import HF


class Losses(NamedTuple):
    first: Tensor
    second: Tensor


class TwoHeads(nn.Module):
    """Losses of 2 and 3 times a weight, and an output that is no loss."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.one, self.other = (nn.Parameter(torch.tensor([value])) for value in (2.0, 3.0))
        self.form = form

    def forward(self, inputs: Tensor) -> Any:
        first, second = (weight.sum() for weight in (self.one, self.other))
        if self.form == "dict":
            return {"first": first, "second": second, "logits": inputs}
        return Losses(first, second) if self.form == "named" else (first, second, inputs)


def made(form: str, **options: Any) -> Workload:
    path = "tests.unit.workloads.test_several_losses:TwoHeads"
    return module.load(seed=0, data_dir=None, path=path, kwargs={"form": form}, input=[5], **options)


def loss_of(workload: Workload) -> Tensor:
    return workload.loss(workload.build(), workload.batch(range(2)))


@pytest.mark.parametrize(
    ("form", "weights", "expected"),
    [
        ("dict", None, 5.0),
        ("tuple", None, 5.0),
        ("named", None, 5.0),
        ("dict", {"second": 0.5}, 1.5),
        ("named", {"first": 1, "second": 2}, 8.0),
        ("tuple", {"0": 3}, 6.0),
        ("tuple", {0: 1, 1: 0.5}, 3.5),
    ],
)
def test_several_losses_are_added_with_their_weights(form: str, weights: Any, expected: float) -> None:
    assert float(loss_of(made(form, loss="sum", loss_weights=weights)).detach()) == expected


@pytest.mark.parametrize(
    ("form", "options", "message"),
    [
        ("tuple", {"loss": "output"}, "returned a tuple; valid .*; workload.loss=sum adds several up"),
        ("dict", {"loss": "output"}, "returned a dict; valid .*; workload.loss=sum adds several up"),
        ("dict", {"loss": "sum", "loss_weights": {"third": 1}}, "no loss third; valid .* of first, second"),
        ("dict", {"loss": "output", "loss_weights": {"first": 1}}, "no effect with loss=output; valid: null, loss=sum"),
        ("dict", {"loss": "sum", "loss_weights": {"first": "much"}}, "valid: {NAME: NUMBER, ...}, null"),
    ],
)
def test_what_gives_no_sum_is_rejected_with_one_line(form: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkloadError, match=re.sub(r"[{}]", r"\\\g<0>", message)):
        loss_of(made(form, **options))


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 64}


def test_bert_is_pretrained_on_masked_tokens_and_on_the_order_of_sentences() -> None:
    pytest.importorskip("transformers")
    config = SMALL | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    workload = HF(seed=0, data_dir=None, model="bert", config=config, sequence_length=16, task="pretraining")
    built, batch = workload.build(), workload.batch(range(8))
    tokens, segments, labels, is_other = batch
    output = built(input_ids=tokens, token_type_ids=segments)
    scores = nn.functional.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten())
    order = nn.functional.cross_entropy(output.seq_relationship_logits, is_other)
    assert float(workload.loss(built, batch).detach()) == pytest.approx(float((scores + order).detach()), rel=1e-5)
    assert 0 < int(is_other.sum()) < 8, "both labels occur"
    assert bool((tokens[labels != -100] == 63).all()) and int((labels != -100).sum()) == 8 * 2
    whole = HF(seed=0, data_dir=None, model="gpt2", config={"vocab_size": 63, "n_layer": 1}, sequence_length=16)
    rows = whole.batch(range(9))[0]
    seen = torch.where(labels == -100, tokens, labels)
    assert torch.equal(seen[:, :8], rows[:8, :8])
    assert torch.equal(seen[:, 8:], torch.where(is_other.bool()[:, None], rows[1:, 8:], rows[:8, 8:]))

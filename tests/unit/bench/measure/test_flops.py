"""Floating-point operations: against counts by hand, and what has no formula is named."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from bench.measure import flops


def counted(run: Callable[[], Tensor]) -> tuple[int, dict[str, int]]:
    """Operations of a function's forward and backward, and what was not counted."""
    counter = flops.Counter()
    with torch.backends.mkldnn.flags(enabled=False), counter:
        run().square().sum().backward()  # a grouped product rejects the expanded gradient of a sum
    return counter.flops, counter.uncounted


def array(*shape: int) -> Tensor:
    return torch.ones(*shape, requires_grad=True)


OFFSETS = torch.tensor([3, 4, 10], dtype=torch.int32)

KEYS_AND_VALUES = array(2, 4, 16, 8), array(2, 4, 16, 8)

CASES: dict[str, tuple[Callable[[], Tensor], int]] = {
    "mm": (lambda: array(3, 4) @ array(4, 5), 3 * 2 * 3 * 4 * 5),
    "bmm": (lambda: array(7, 3, 4) @ array(7, 4, 5), 3 * 2 * 7 * 3 * 4 * 5),
    "matrix by vector": (lambda: array(3, 4) @ array(4), 2 * 3 * 4 * 2),  # the matrix's gradient is no product
    "dot": (lambda: array(9) @ array(9), 2 * 9),
    "addbmm": (lambda: torch.addbmm(array(3, 5), array(7, 3, 4), array(7, 4, 5)), 3 * 2 * 7 * 3 * 4 * 5),
    "baddbmm": (lambda: torch.baddbmm(array(7, 3, 5), array(7, 3, 4), array(7, 4, 5)), 3 * 2 * 7 * 3 * 4 * 5),
    "addmv": (lambda: torch.addmv(array(3), array(3, 4), array(4)), 2 * 3 * 4 * 2),
    "einsum": (lambda: torch.einsum("bij,bkj->bik", array(2, 3, 4), array(2, 5, 4)), 3 * 2 * 2 * 3 * 4 * 5),
    "linear of three dimensions": (lambda: functional.linear(array(2, 3, 4), array(5, 4)), 3 * 2 * 2 * 3 * 4 * 5),
    "bilinear": (lambda: functional.bilinear(array(6, 3), array(6, 4), array(5, 3, 4)), 4 * 2 * 6 * 3 * 4 * 5),
    "rows by the matrix of their group": (
        lambda: torch._grouped_mm(array(10, 16).bfloat16(), array(3, 16, 8).bfloat16(), offs=OFFSETS),
        3 * 2 * 10 * 16 * 8,
    ),
    "a convolution in groups": (lambda: functional.conv2d(array(2, 8, 5, 5), array(8, 2, 3, 3), groups=4), 3 * 5184),
    "attention": (
        lambda: functional.scaled_dot_product_attention(array(2, 4, 16, 8), *KEYS_AND_VALUES, is_causal=True),
        3 * 4 * 2 * 4 * 16 * 16 * 8,
    ),
    "a sparse matrix by a dense one": (lambda: torch.eye(50).to_sparse() @ array(50, 4), 2 * 2 * 50 * 4),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward_are_those_counted_by_hand(name: str) -> None:
    run, by_hand = CASES[name]
    assert counted(run) == (by_hand, {})


@pytest.mark.parametrize(
    ("left", "right", "by_hand"),
    [
        ((10, 4), (3, 4, 5), 2 * 10 * 4 * 5),
        ((3, 10, 4), (4, 9), 2 * 10 * 4 * 9),
        ((3, 10, 4), (3, 4, 5), 3 * 2 * 10 * 4 * 5),
        ((10, 12), (12, 5), 2 * 10 * 12 * 5),
    ],
)
def test_each_row_of_a_grouped_product_belongs_to_one_group(
    left: tuple[int, ...], right: tuple[int, ...], by_hand: int
) -> None:
    assert flops.grouped_product(torch.empty(left), torch.empty(right)) == by_hand


def test_a_mixture_of_experts_costs_the_same_by_grouped_products_as_by_one_product_each() -> None:
    tokens, experts = torch.ones(10, 16, dtype=torch.bfloat16), torch.ones(3, 16, 8, dtype=torch.bfloat16)
    ends = [0, *OFFSETS.tolist()]

    def one_by_one() -> Tensor:
        weights = experts.clone().requires_grad_()
        parts = [tokens[a:b] @ weights[i] for i, (a, b) in enumerate(itertools.pairwise(ends))]
        return torch.cat(parts)

    grouped = counted(lambda: torch._grouped_mm(tokens, experts.clone().requires_grad_(), offs=OFFSETS))
    assert grouped == counted(one_by_one)


def test_a_gradient_by_an_input_and_the_gradient_of_a_gradient_are_counted() -> None:
    """Of y = x·W: forward, dy/dx, and twice as much for the gradient of the penalty."""
    module = nn.Linear(4, 5)

    def penalty() -> Tensor:
        inputs = array(3, 4)
        slope = torch.autograd.grad(module(inputs).square().sum(), inputs, create_graph=True)[0]
        return slope.square().sum()

    product = 2 * 3 * 4 * 5
    total, uncounted = counted(penalty)
    assert uncounted == {}
    assert total >= 6 * product and total % product == 0


def test_layers_that_torch_counts_have_its_counts() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    for model, inputs in ((module, torch.ones(2, 3, 8, 8)), (layer, torch.ones(2, 5, 16))):
        torchs = FlopCounterMode(display=False)
        with torchs:
            model(inputs)
        counter = flops.Counter()
        with counter:
            model(inputs)
        assert (counter.flops, counter.uncounted) == (torchs.get_total_flops(), {})


def test_what_multiplies_and_has_no_formula_is_named() -> None:
    run = torch.linalg.inv
    total, uncounted = counted(lambda: run(torch.eye(4).requires_grad_()))
    assert "aten::linalg_inv_ex" in uncounted
    assert total == 2 * 2 * 4 * 4 * 4  # the two products of its backward


def test_products_within_a_persons_own_operator_are_counted_and_others_are_named() -> None:
    library = torch.library.Library("flops_of_a_test", "DEF")
    library.define("opaque(Tensor a, Tensor b) -> Tensor")
    library.impl("opaque", lambda a, b: a @ b, "CPU")

    @torch.library.custom_op("flops_of_a_test::in_python", mutates_args=())
    def in_python(a: Tensor, b: Tensor) -> Tensor:
        return a @ b

    a, b, counter = torch.ones(3, 4), torch.ones(4, 5), flops.Counter()
    with counter:
        in_python(a, b)
        torch.ops.flops_of_a_test.opaque(a, b)
    assert (counter.flops, counter.uncounted) == (2 * 3 * 4 * 5, {"flops_of_a_test::opaque": 1})


def test_all_products_of_torch_have_a_formula_or_a_name() -> None:
    """By names that this torch has: none that multiplies is taken for elementwise work."""
    names = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()}
    endings = ("mm", "_mm", "bmm", "convolution", "matmul", "_rnn", "_attention", "_attention_backward")
    products = {name for name in names if name.startswith("aten::") and name.endswith(endings)}
    assert len(products) > 40
    assert [name for name in sorted(products) if not flops.multiplies(name)] == []
    for name in (
        "aten::lgamma",
        "aten::cummin",
        "aten::upsample_bilinear2d",
        "aten::_thnn_fused_lstm_cell",
        "aten::mul",
    ):
        assert not flops.multiplies(name)

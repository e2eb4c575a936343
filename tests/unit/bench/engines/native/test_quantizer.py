"""Block-wise 8-bit quantization: against its definition, element by element, and at its edges."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.engines.native import quantizer
from bench.engines.native.quantizer import BLOCK, add_dequantized, dequantize, packed_bytes, quantize
from bench.measure.memory.step import StepMemory

TINY = np.finfo(np.float32).tiny


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Several pieces per tensor, as there are of large ones."""
    monkeypatch.setattr(quantizer, "PIECE", 2 * BLOCK)
    yield


def sent(values: Tensor) -> Tensor:
    packed = torch.empty(packed_bytes(values.numel()), dtype=torch.int8)
    quantize(values, packed)
    return packed


def received(values: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    out = torch.empty(values.numel(), dtype=dtype)
    dequantize(sent(values), out)
    return out


def by_definition(values: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty_like(values)
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        scale = np.float32(np.abs(block).max() / np.float32(127))
        out[start : start + BLOCK] = 0 if scale < TINY else np.rint(block / scale).astype(np.int8) * scale
    return out


@pytest.mark.parametrize("count", [1, 16, BLOCK, BLOCK + 16, 5 * BLOCK - 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_element_becomes_what_the_definition_says(count: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(count)
    values = (torch.randn(count, generator=generator) * 10 ** torch.randn(count, generator=generator)).to(dtype)
    right = by_definition(values.float().numpy())
    assert np.array_equal(received(values).numpy(), right)
    assert torch.equal(received(values, torch.bfloat16), torch.from_numpy(right).bfloat16())


def test_an_element_is_off_by_at_most_half_a_scale_and_the_largest_one_hardly() -> None:
    values = torch.randn(BLOCK, generator=torch.Generator().manual_seed(0))
    off, scale = (received(values) - values).abs(), values.abs().max() / 127
    assert off.max() <= 0.5001 * scale
    assert off[values.abs().argmax()] <= 1e-6 * values.abs().max()


def test_ties_go_to_the_even_code_and_signs_are_symmetric() -> None:
    values = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 0.0])
    assert received(values).tolist() == [127.0, 0.0, 2.0, 2.0, 0.0, -2.0, 0.0]
    assert received(-values).tolist() == [-127.0, 0.0, -2.0, -2.0, 0.0, 2.0, 0.0]


def test_zeros_stay_zero_and_a_block_below_the_normal_numbers_becomes_zero() -> None:
    values = torch.zeros(3 * BLOCK)
    values[BLOCK : 2 * BLOCK] = 1e-38
    values[2 * BLOCK :] = 1.0
    expected = torch.zeros(3 * BLOCK)
    expected[2 * BLOCK :] = 1.0
    assert torch.equal(received(values), expected)


@pytest.mark.parametrize("value", [float("inf"), -float("inf"), float("nan")])
def test_a_number_that_is_not_finite_makes_its_block_nan_and_no_other(value: float) -> None:
    values = torch.ones(3 * BLOCK + 8)
    values[BLOCK + 3] = value
    out = received(values)
    assert out[BLOCK : 2 * BLOCK].isnan().all()
    assert torch.equal(torch.cat([out[:BLOCK], out[2 * BLOCK :]]), torch.ones(2 * BLOCK + 8))
    total = torch.empty_like(values)
    add_dequantized([sent(torch.ones_like(values)), sent(values)], total)
    assert total[BLOCK : 2 * BLOCK].isnan().all() and total[:BLOCK].eq(2).all()


def test_fp64_beyond_fp32_is_not_finite_either() -> None:
    assert received(torch.full((4,), 1e300, dtype=torch.float64), torch.float64).isnan().all()


@pytest.mark.parametrize("ranks", [1, 2, 5])
def test_rows_are_dequantized_once_and_added_in_fp32_in_their_order(ranks: int) -> None:
    generator = torch.Generator().manual_seed(ranks)
    rows = [torch.randn(3 * BLOCK + 16, generator=generator).bfloat16() for _ in range(ranks)]
    expected = received(rows[0])
    for row in rows[1:]:
        expected = expected + received(row)
    out = torch.empty(3 * BLOCK + 16, dtype=torch.bfloat16)
    add_dequantized([sent(row) for row in rows], out)
    assert torch.equal(out, expected.bfloat16())


def test_an_element_takes_a_byte_and_a_block_four_more() -> None:
    assert [packed_bytes(count) for count in (0, 1, BLOCK, BLOCK + 1)] == [0, 5, 260, 265]
    assert packed_bytes(1 << 20) / (4 << 20) == 1.015625 / 4


@pytest.mark.parametrize(("dtype", "rooms"), [(torch.float32, 1), (torch.bfloat16, 2), (torch.float64, 2)])
def test_a_piece_needs_room_in_fp32_and_the_sum_of_another_dtype_once_more(
    dtype: torch.dtype, rooms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``analysis.theory.native_engine`` predicts; scales of blocks come in addition."""
    monkeypatch.setattr(quantizer, "PIECE", 1 << 14)
    values = torch.randn(3 << 14, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed = sent(values)

    def taken(function: Callable[[], None]) -> float:
        """Bytes, in rooms."""
        memory = StepMemory(torch.device("cpu"))
        with memory, memory.step({}, []):
            function()
        return (memory.result().peak_bytes - memory.result().rest_bytes) / (4 << 14)

    assert taken(lambda: quantize(values, packed)) == pytest.approx(1, abs=0.05)
    assert taken(lambda: add_dequantized([packed, packed], values)) == pytest.approx(rooms, abs=0.05)

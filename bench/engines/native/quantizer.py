"""Block-wise quantization to 8 bits, symmetric: the numbers that ranks send with the setting ``quantize``.

Elements are cut into blocks of ``BLOCK``; the last block may be shorter. A block has one scale in fp32, and each of its
elements a code in int8:

    scale = max |x| / 127
    code  = x / scale, rounded to the nearest integer, ties to even
    x'    = code · scale

So |x' - x| <= scale / 2, up to rounding in fp32. Zero stays zero. Two kinds of blocks are special:

    the scale is below the smallest normal number of fp32    all elements become zero
    an element is infinite or NaN                            the scale is NaN, so all elements become NaN

The second keeps an overflow visible to loss scaling and to the gradient's norm, whichever rank it comes from.

``packed`` elements are one tensor in int8, which is sent as it is: the scales' bytes, then the codes.

Source: Wang et al., ZeRO++ (2023), section 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 256
"""Elements that share a scale: 1.6 % more bytes than the codes alone."""
SCALE_BYTES = 4
MAX_CODE = 127
PIECE = 1 << 16
"""Elements that a CPU computes at a time, so that they stay in its cache; whole blocks."""
CUDA_PIECE = 1 << 24
"""The same on a GPU, to bound the memory of temporaries."""
LEAST_SCALE = torch.finfo(torch.float32).tiny


@dataclass(frozen=True)
class Piece:
    """Consecutive blocks of the same width."""

    elements: slice
    blocks: slice
    width: int

    def rows(self, flat: Tensor) -> Tensor:
        """Its elements of ``flat``, one row per block."""
        return flat[self.elements].view(-1, self.width)

    def head(self, room: Tensor) -> Tensor:
        """The first elements of ``room``, in the same shape."""
        return room[: self.elements.stop - self.elements.start].view(-1, self.width)


def pieces(flat: Tensor) -> Iterator[Piece]:
    """All blocks of ``flat``, in order; the short block at the end is a piece of its own."""
    elements, most = flat.numel(), piece_elements(flat)
    whole = elements // BLOCK * BLOCK
    for begin in range(0, whole, most):
        end = min(begin + most, whole)
        yield Piece(slice(begin, end), slice(begin // BLOCK, end // BLOCK), BLOCK)
    if whole < elements:
        yield Piece(slice(whole, elements), slice(whole // BLOCK, whole // BLOCK + 1), elements - whole)


def piece_elements(flat: Tensor) -> int:
    """Elements of the largest piece of ``flat``."""
    return min(flat.numel(), CUDA_PIECE if flat.is_cuda else PIECE)


def packed_bytes(elements: int) -> int:
    """Bytes of so many elements, packed: a code each, and a scale per block."""
    return elements + SCALE_BYTES * -(-elements // BLOCK)


def quantize(values: Tensor, packed: Tensor) -> None:
    """Writes ``values`` (S elements of a floating-point dtype) to ``packed`` (``packed_bytes(S)``, int8)."""
    scales, codes = _unpack(packed, values.numel())
    room = values.new_empty(piece_elements(values), dtype=torch.float32)
    for piece in pieces(values):
        rows, quotients = piece.rows(values), piece.head(room)
        scale = torch.maximum(rows.amax(1), -rows.amin(1)).float() / MAX_CODE
        scale.masked_fill_(scale < LEAST_SCALE, 0.0)  # not where it is NaN
        scale.masked_fill_(scale.isinf(), float("nan"))
        scales[piece.blocks] = scale
        # Division by infinity makes codes of 0. The codes of a block with a scale of NaN do not matter.
        divisor = scale.masked_fill(scale == 0, float("inf")).unsqueeze(1)
        # A quotient of another dtype and fp32 would allocate memory for the elements in fp32.
        dividend = rows if rows.dtype == torch.float32 else quotients.copy_(rows)
        torch.div(dividend, divisor, out=quotients)
        piece.rows(codes).copy_(quotients.round_())


def dequantize(packed: Tensor, values: Tensor) -> None:
    """Writes the elements of ``packed`` to ``values``, of a floating-point dtype."""
    scales, codes = _unpack(packed, values.numel())
    room = None if values.dtype == torch.float32 else values.new_empty(piece_elements(values), dtype=torch.float32)
    for piece in pieces(values):
        target = piece.rows(values) if room is None else piece.head(room)
        _write(piece, scales, codes, target)
        if room is not None:
            piece.rows(values).copy_(target)


def add_dequantized(rows: Sequence[Tensor], out: Tensor) -> None:
    """Writes the sum of ``rows`` (packed, S elements each), added in fp32 in their order, to ``out`` (S elements)."""
    has_room = out.dtype != torch.float32  # else sums are made in their place
    rooms = out.new_empty(1 + has_room, piece_elements(out), dtype=torch.float32)
    unpacked = [_unpack(row, out.numel()) for row in rows]
    for piece in pieces(out):
        total = piece.head(rooms[-1]) if has_room else piece.rows(out)
        _write(piece, *unpacked[0], total)
        for scales, codes in unpacked[1:]:
            summand = piece.head(rooms[0])
            _write(piece, scales, codes, summand)
            total += summand
        if has_room:
            piece.rows(out).copy_(total)


def _write(piece: Piece, scales: Tensor, codes: Tensor, target: Tensor) -> None:
    """The elements of a piece, in fp32. A product of int8 and fp32 would allocate memory for the codes in fp32."""
    target.copy_(piece.rows(codes)).mul_(scales[piece.blocks].unsqueeze(1))


def _unpack(packed: Tensor, elements: int) -> tuple[Tensor, Tensor]:
    """Scales and codes of ``packed``, as views of it."""
    size = packed.numel() - elements
    return packed[:size].view(torch.float32), packed[size:]

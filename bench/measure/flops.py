"""The floating-point operations of matrix products, convolutions and attention, counted as operators are dispatched.

Three kinds of operators: those with a formula, those that do without (elementwise work is not counted), and those that
multiply matrices and have no formula, or that no rule here knows: ``Counter.uncounted`` names these.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

aten = torch.ops.aten

Formula = Callable[..., int]
"""From an operator's own arguments, and its result as ``out_val``."""

PRODUCT = re.compile(
    r"""(^|_|::)(
        (add|badd|sspadd|chain_|int[48]pack_)?(mm|bmm|mv|matmul)   # with or without something added
        | (add)?bmm | addr | ger | s?mm | hspmm | v?dot | inner | outer | kron | tensordot | einsum
        | \w*gemm | \w*linear | \w*bilinear | trilinear | \w*conv\d?d? | \w*convolution | deform_conv2d
        | \w*attention | rnn | lstm | gru
        | linalg_(?!vector_norm|cross|diagonal|check_errors|powsum|vander)\w+
        | cholesky\w* | triangular_solve | ormqr | lu_\w+ | fft_\w+
    )(_|\d|$)""",
    re.VERBOSE,
)
"""Names of operators that multiply matrices, convolve, attend, solve or transform."""
NO_PRODUCT = re.compile(
    r"_?upsample_|linalg__powsum|.*prepack|.*unpack|.*_(quantize|pack)_|mkldnn_reorder|.*_cell(_|$)|.*flatten_weight"
)
"""Names that only look like it."""

WITHOUT_PRODUCTS = frozenset({"torchvision::nms", "torchvision::roi_align", "torchvision::_roi_align_backward"})
"""Operators outside of torch whose work is no product."""
OF_TORCH = ("aten::", "prim::", "prims::", "profiler::", "c10d::", "_c10d_functional::", "_dtensor::", "rngprims::")
"""Namespaces whose operators are judged by name; any other operator may multiply, whatever its name."""


class Counter(TorchDispatchMode):
    """Counts while its context is open, backward included. It needs no modules, so any call of autograd is counted."""

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0
        self.uncounted: dict[str, int] = {}
        """Calls by operator, of those that multiply and have no formula."""

    def __torch_dispatch__(
        self, operator: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        named = named or {}
        if isinstance(operator, torch._ops.HigherOrderOperator):
            return self._higher_order(operator, arguments, named)
        packet = operator._overloadpacket
        if packet in (aten.sym_size, aten.sym_stride, aten.sym_numel, aten.is_contiguous, aten.dim, aten.size):
            return NotImplemented  # what a nested tensor asks of itself
        formula = formula_of(packet)
        if formula is None:
            with self:
                result = operator.decompose(*arguments, **named)
            if result is not NotImplemented:
                return result
            body = python_body(packet, arguments)
            if body:
                with self:
                    return body(*arguments, **named)
        result = operator(*arguments, **named)
        self._count(packet_name(packet), formula, arguments, named, result)
        return result

    def _higher_order(self, operator: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
        """Such as flex_attention. What is inside one runs below this mode, so one without a formula is named."""
        result = operator(*arguments, **named)
        self._count(f"higher_order::{operator.name()}", flop_registry.get(operator), arguments, named, result)
        return result

    def _count(
        self, name: str, formula: Formula | None, arguments: tuple[Any, ...], named: Mapping[str, Any], result: Any
    ) -> None:
        if formula:
            try:
                self.flops += int(formula(*arguments, **named, out_val=result))
                return
            except (TypeError, ValueError, AssertionError, AttributeError, IndexError):
                pass  # called in a form that the formula does not know: named below
        if formula or multiplies(name, (arguments, named)):
            self.uncounted[name] = self.uncounted.get(name, 0) + 1


def formula_of(packet: Any) -> Formula | None:
    return FORMULAS.get(packet) or flop_registry.get(packet)


def packet_name(packet: Any) -> str:
    return str(packet._qualified_op_name)


def multiplies(name: str, arguments: Any = ()) -> bool:
    """Whether an operator multiplies matrices, by its name; or may, if it is none of torch's and takes two arrays."""
    if name in WITHOUT_PRODUCTS:
        return False
    own = name.partition("::")[2]
    if name.startswith(OF_TORCH):
        return bool(PRODUCT.search(own)) and not NO_PRODUCT.match(own)
    arrays = [
        leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor) and leaf.dim() and leaf.numel() > 1
    ]
    return sum(array.is_floating_point() or array.is_complex() for array in arrays) > 1


def python_body(packet: Any, arguments: tuple[Any, ...]) -> Formula | None:
    """The Python code of a user's operator (``torch.library.custom_op``), whose products can then be counted."""
    from torch._library.custom_ops import OPDEFS  # private: without it such an operator is named as uncounted

    definition = OPDEFS.get(packet_name(packet))
    bodies = getattr(definition, "_backend_fns", {})
    devices = [leaf.device.type for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
    return bodies.get(devices[0] if devices else None) or bodies.get(None)


def elements(tensor: Tensor) -> int:
    """Those that are stored: of a sparse tensor the ones that are not zero."""
    if tensor.layout is torch.strided:
        return tensor.numel()
    return (tensor._values() if tensor.layout is torch.sparse_coo else tensor.values()).numel()


def product(left: Tensor, right: Tensor, *_: Any, **more: Any) -> int:
    """(..., m, k) by (..., k, n), two operations for each pair of elements; of a sparse one the stored."""
    if left.layout is not torch.strided:
        return 2 * elements(left) * right.shape[-1]
    return 2 * elements(right) * int(left.shape[-2])


def added_product(added: Tensor, left: Tensor, right: Tensor, *_: Any, **more: Any) -> int:
    return product(left, right)


def sampled_product(places: Tensor, left: Tensor, right: Tensor, *_: Any, **more: Any) -> int:
    """Only where a sparse matrix has elements."""
    return 2 * elements(places) * left.shape[-1]


def vector_product(matrix: Tensor, vector: Tensor, *_: Any, **more: Any) -> int:
    """A matrix or vector by a vector."""
    return 2 * elements(matrix)


def added_vector_product(added: Tensor, matrix: Tensor, vector: Tensor, *_: Any, **more: Any) -> int:
    return 2 * elements(matrix)


def outer_product(added: Tensor, one: Tensor, other: Tensor, *_: Any, **more: Any) -> int:
    return 2 * one.numel() * other.numel()


def trilinear(*arguments: Any, out_val: Any = None, **more: Any) -> int:
    """``nn.Bilinear`` and its gradients: three arrays, each expanded in some dimensions, multiplied and summed.

    The first two of (batch, in1), (out, in1, in2) and (batch, in2) make the product of batch · out · in1 · in2 pairs.
    """
    arrays, expansions = arguments[:3], arguments[3:6]
    shapes = []
    for array, expanded in zip(arrays, expansions, strict=True):
        shape = list(array.shape)
        for place in sorted(expanded):
            shape.insert(place, 1)
        shapes.append(shape)
    return int(2 * prod(map(max, zip(*shapes, strict=True))))


def grouped_product(left: Tensor, right: Tensor, *_: Any, **more: Any) -> int:
    """Matrices in groups, as mixtures of experts multiply them.

    (rows of all groups, k) by (groups, k, n): each row by its group's matrix. (groups, m, k) by (k, columns of all
    groups) likewise. (m, k of all groups) by (k of all groups, n): a matrix for each group. Three dimensions by three:
    a batch.
    """
    batch = left.shape[0] if left.dim() == right.dim() == 3 else 1
    return 2 * batch * left.shape[-2] * left.shape[-1] * right.shape[-1]


def several_products(lefts: list[Tensor], rights: list[Tensor], *_: Any, **more: Any) -> int:
    return sum(map(product, lefts, rights))


def product_by_packed(left: Tensor, *_: Any, out_val: Any = None, **more: Any) -> int:
    """By weights in a format of their own: (..., k) to (..., n), the last size of the result."""
    return 2 * int(out_val.numel()) * left.shape[-1]


def recurrent(inputs: Tensor, weights: list[Tensor], *_: Any, **more: Any) -> int:
    """Fused recurrent layers: each matrix of weights once for each place in each sequence."""
    places = prod(inputs.shape[:-1])
    return 2 * places * sum(weight.numel() for weight in weights if weight.dim() > 1)


def recurrent_backward(inputs: Tensor, weights: list[Tensor], *_: Any, **more: Any) -> int:
    return 2 * recurrent(inputs, weights)


def one_recurrent_layer(inputs: Tensor, of_inputs: Tensor, of_state: Tensor, *_: Any, **more: Any) -> int:
    return recurrent(inputs, [of_inputs, of_state])


def one_recurrent_layer_backward(inputs: Tensor, of_inputs: Tensor, of_state: Tensor, *_: Any, **more: Any) -> int:
    return 2 * recurrent(inputs, [of_inputs, of_state])


def convolution_backward(gradient: Tensor, inputs: Tensor, weight: Tensor, *settings: Any, **more: Any) -> int:
    """Operations of a convolution's backward: of the forward, for each of the two gradients that is needed.

    torch counts the weight's gradient as if there were one group. A weight is (out, in/groups, *kernel), transposed
    (in, out/groups, *kernel); each of its elements is used at every place of the output, transposed of the input.
    """
    transposed, wanted = settings[4], settings[7]
    places = prod(inputs.shape[2:] if transposed else gradient.shape[2:])
    return 2 * inputs.shape[0] * places * weight.numel() * sum(map(bool, wanted[:2]))


def attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any) -> int:
    """Operations of fused attention, (..., length, width): scores, and their sums of values."""
    return 2 * prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def attention_backward(gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: Any, **more: Any) -> int:
    """Two gradients for each product of forward; scores that it computes again are not the model's."""
    return 2 * attention(query, key, value)


def packed_attention_backward(*arguments: Any, **named: Any) -> int:
    """Of kernels that take sequences of several lengths: torch counts five products, one of which is computed again."""
    counted = flop_registry[aten._flash_attention_backward](*arguments, **named)
    return int(counted) * 4 // 5


def efficient_attention_backward(*arguments: Any, **named: Any) -> int:
    counted = flop_registry[aten._efficient_attention_backward](*arguments, **named)
    return int(counted) * 4 // 5


BY_NAME: dict[str, Formula] = {
    **dict.fromkeys(("mm", "_int_mm", "bmm", "_sparse_mm", "smm", "_sparse_sparse_matmul"), product),
    **dict.fromkeys(("addmm", "_addmm_activation", "baddbmm", "addbmm", "_sparse_addmm"), added_product),
    **dict.fromkeys(("addmm_", "baddbmm_", "addbmm_", "sspaddmm"), added_product),
    **dict.fromkeys(("mv", "dot", "vdot"), vector_product),
    **dict.fromkeys(("addmv", "addmv_"), added_vector_product),
    **dict.fromkeys(("addr", "addr_"), outer_product),
    **dict.fromkeys(("_grouped_mm", "_scaled_grouped_mm", "_scaled_grouped_mm_v2"), grouped_product),
    **dict.fromkeys(("_scaled_mm", "_scaled_mm_v2"), product),
    **dict.fromkeys(("_weight_int8pack_mm", "_weight_int4pack_mm", "_weight_int4pack_mm_for_cpu"), product_by_packed),
    **dict.fromkeys(("mkldnn_linear", "_mixed_dtypes_linear", "_sparse_semi_structured_linear"), product_by_packed),
    "_foreach_mm": several_products,
    "sparse_sampled_addmm": sampled_product,
    "_trilinear": trilinear,
    **dict.fromkeys(("_cudnn_rnn", "miopen_rnn"), recurrent),
    **dict.fromkeys(("_cudnn_rnn_backward", "miopen_rnn_backward"), recurrent_backward),
    "mkldnn_rnn_layer": one_recurrent_layer,
    "mkldnn_rnn_layer_backward": one_recurrent_layer_backward,
    "convolution_backward": convolution_backward,
    "_scaled_dot_product_fused_attention_overrideable": attention,
    **{
        f"_scaled_dot_product_{kind}": attention
        for kind in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    },
    "_scaled_dot_product_fused_attention_overrideable_backward": attention_backward,
    **{
        f"_scaled_dot_product_{kind}_backward": attention_backward
        for kind in ("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention")
    },
    "_flash_attention_backward": packed_attention_backward,
    "_efficient_attention_backward": efficient_attention_backward,
}
"""In place of torch's own formulas, or where it has none; a name that this torch lacks is passed over."""

FORMULAS: dict[Any, Formula] = {
    getattr(aten, name): formula for name, formula in BY_NAME.items() if hasattr(aten, name)
}

"""Parameters that a loss reads outside of their sharding unit's forward, also where autograd keeps no trace of it.

``bench.worker.loss_trace`` follows gradients. This sees what is read under ``torch.no_grad()``, of ``weight.data`` or
of ``weight.detach()``, and what no loss depends on, such as a norm for a log line.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bench.engines.batches import tensors_of
from bench.engines.param_owners import ROOT, holders

TO_PYTHON = ("item", "tolist", "numpy", "__array__", "__float__", "__int__", "__bool__", "equal", "allclose")
"""Functions that read elements and return no tensor."""
ONLY_SHAPED = ("_like", "new_")
"""Parts of the names of functions that return a tensor of the same kind, and read no element."""


class _Reads(TorchFunctionMode):
    """Notes each parameter whose elements a torch function of this thread is given while ``is_open`` denies it."""

    def __init__(self, names: dict[int, str], is_open: Callable[[int], bool]) -> None:
        super().__init__()
        self.names: dict[str, None] = {}
        self._names, self._is_open = names, is_open

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if reads_elements(func, result):
            for tensor in tensors_of([args, kwargs or {}]):
                if id(tensor) in self._names and not self._is_open(id(tensor)):
                    self.names[self._names[id(tensor)]] = None
        return result


def reads_elements(func: Any, result: Any) -> bool:
    """Whether a torch function with this result read more of a tensor than its shape, dtype, device or gradient."""
    name = getattr(func, "__name__", "")
    if name == "__get__":  # an attribute: .data is the elements, .grad is another tensor
        return getattr(func.__self__, "__name__", "") != "grad" and bool(tensors_of(result))
    return name in TO_PYTHON or (not any(part in name for part in ONLY_SHAPED) and bool(tensors_of(result)))


def read_outside(module: nn.Module, units: list[nn.Module], loss: Callable[[], Tensor]) -> list[str]:
    """Computes the loss once; the parameters that it reads while none of their units, or for those of the root the
    module, is in forward. Compiled parts run eagerly."""
    places, in_forward = holders(module, units), Counter[int]()
    names = {id(weight): name for name, weight in module.named_parameters()}

    def is_open(weight: int) -> bool:
        return any(in_forward[place] for place in places[weight])

    reads = _Reads(names, is_open)
    with contextlib.ExitStack() as watching:
        for place, part in ((ROOT, module), *enumerate(units)):
            if isinstance(part, torch.jit.ScriptModule):  # it takes no hooks, and its functions are not seen
                return []
            watching.enter_context(counted_forwards(part, in_forward, place))
        if "torch._dynamo" in sys.modules:  # else nothing is compiled
            watching.enter_context(torch.compiler.set_stance("force_eager"))
        watching.enter_context(reads)
        loss()
    return list(reads.names)


@contextlib.contextmanager
def counted_forwards(part: nn.Module, in_forward: Counter[int], place: int) -> Iterator[None]:
    """Counts in ``in_forward[place]`` how many forwards of ``part`` are running."""

    def enter(*_: Any) -> None:
        in_forward[place] += 1

    def leave(*_: Any) -> None:
        in_forward[place] -= 1

    handles = [part.register_forward_pre_hook(enter, prepend=True)]
    handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

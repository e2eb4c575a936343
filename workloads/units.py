"""Sharding units of a module without named units: what stage 3 gathers one at a time.

    split       a module of more than ``SPLIT`` of all parameters (a block, which is an entry of a list, of more than
                ``SPLIT_BLOCK``) into its children, until nothing that can be split is that large
    leave out   what its parent reads without calling it, weights that are tied to others, scripted modules, and the
                smallest, up to ``LEFT_OUT`` of all parameters together: they belong to the root
    order       as forward calls them

Or a person names them by class or by a pattern of their names (``named_units``).
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from workloads.base import Workload, WorkloadError, kept_generators

CPU = torch.device("cpu")
SPLIT = 1 / 8
SPLIT_BLOCK = 1 / 4
LEFT_OUT = 1 / 100

LISTS = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
"""Their entries are blocks."""
OPEN = (*LISTS, nn.Transformer, nn.TransformerEncoder, nn.TransformerDecoder)
"""Classes of torch that call their children. Others, as MultiheadAttention, read their children's weights."""


@dataclass(frozen=True)
class Calls:
    """The modules that a forward called, by name, in the order of their first calls; empty if there was none."""

    names: list[str] = field(default_factory=list)

    def place(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None


def calls_of(module: nn.Module, forward: Callable[[], object], device: torch.device = CPU) -> Calls:
    """The modules that ``forward`` of ``module`` calls on ``device``; its buffers and random generators stay as before.

    Raises nothing: a forward that fails is reported where the module is trained.
    """
    names = {id(part): name for name, part in reversed(list(module.named_modules()))}
    called: dict[str, None] = {}

    def note(part: nn.Module, _: object) -> None:
        if id(part) in names:
            called.setdefault(names[id(part)])

    hooks = [
        part.register_forward_pre_hook(note)
        for part in module.modules()
        if not isinstance(part, torch.jit.ScriptModule)
    ]
    try:
        with kept_buffers(module), kept_generators(device), torch.no_grad():
            forward()
    except Exception:
        return Calls()
    finally:
        for hook in hooks:
            hook.remove()
    return Calls(list(called))


class LossCalls:
    """The modules that a workload's loss calls for two samples. They are traced once in a process."""

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._calls: Calls | None = None

    def of(self, module: nn.Module) -> Calls:
        if self._calls is None:
            device = next((weight.device for weight in module.parameters()), CPU)
            batch = tuple(entry.to(device) for entry in self._workload.batch(range(2)))
            self._calls = calls_of(module, lambda: self._workload.loss(module, batch), device)
        return self._calls


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """Buffers, such as BatchNorm's statistics, have their values back at the end."""
    kept = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if buffer.layout is torch.strided]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, values in kept:
                buffer.copy_(values)


def default_units(module: nn.Module, calls: Calls) -> list[nn.Module]:
    """The units of ``module``, in the order of forward. They do not nest and share no parameter."""
    finder = Finder(module, calls)
    units = finder.below(module, "")
    by_size = sorted(units, key=lambda unit: size_of(unit[1]))
    left_out: set[int] = set()
    size = 0
    for _, unit in by_size[:-1]:
        size += size_of(unit)
        if size > LEFT_OUT * finder.total:
            break
        left_out.add(id(unit))
    kept = [(name, unit) for name, unit in units if id(unit) not in left_out]
    return in_order(kept, calls)


def block_units(module: nn.Module, calls: Calls) -> list[nn.Module]:
    """The entries of the outermost lists of modules, a transformer's blocks; ``default_units`` where there are none.

    An entry that is not called, or shares a parameter with others, is left to the root.
    """
    finder = Finder(module, calls)
    units = finder.blocks(module, "")
    return in_order(units, calls) if units else default_units(module, calls)


class Finder:
    """Splits a module into units from the top."""

    def __init__(self, module: nn.Module, calls: Calls) -> None:
        self.total = size_of(module)
        self._calls = calls
        self._holders: dict[int, set[int]] = {}
        for part in module.modules():
            for weight in part._parameters.values():
                if weight is not None:
                    self._holders.setdefault(id(weight), set()).add(id(part))

    def below(self, module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
        """The units among the children of ``module``, by name."""
        units: list[tuple[str, nn.Module]] = []
        taken: set[int] = set()
        for child_name, child in module.named_children():
            path = f"{name}.{child_name}" if name else child_name
            if id(child) in taken or not any(True for _ in child.parameters()) or is_scripted(child):
                continue
            taken.add(id(child))
            block = isinstance(module, LISTS)
            if self._is_unit(child, path, block=block):
                units.append((path, child))
            elif opens(child):
                units += self.below(child, path)
        return units

    def blocks(self, module: nn.Module, name: str) -> list[tuple[str, nn.Module]]:
        """The called entries of lists below ``module``, by name; those within an entry are its own."""
        units: list[tuple[str, nn.Module]] = []
        for child_name, child in module.named_children():
            path = f"{name}.{child_name}" if name else child_name
            is_block = isinstance(module, nn.ModuleList) and self._calls.place(path) is not None
            if is_block and any(True for _ in child.parameters()) and not self._is_shared(child):
                units.append((path, child))
            else:
                units += self.blocks(child, path)
        return units

    def _is_unit(self, child: nn.Module, path: str, *, block: bool) -> bool:
        if type(child).forward is nn.Module.forward or self._is_shared(child):
            return False
        if self._calls.names and self._calls.place(path) is None and not block:
            return False
        divides = opens(child) and any(True for part in child.children() for _ in part.parameters())
        return not divides or size_of(child) <= (SPLIT_BLOCK if block else SPLIT) * self.total

    def _is_shared(self, child: nn.Module) -> bool:
        """Whether a module outside ``child`` has one of its parameters, too."""
        inside = {id(part) for part in child.modules()}
        return any(not self._holders[id(weight)] <= inside for weight in child.parameters())


def opens(module: nn.Module) -> bool:
    """Whether the children of ``module`` may be units: it calls them, as far as its class shows."""
    ours = type(module).__module__.startswith(("torch.nn.", "torch._dynamo."))
    return not ours or isinstance(module, OPEN)


def is_scripted(module: nn.Module) -> bool:
    """A scripted module, or one that contains one: it takes no hooks."""
    return isinstance(module, torch.jit.ScriptModule)


def in_order(units: Sequence[tuple[str, nn.Module]], calls: Calls) -> list[nn.Module]:
    """Units in the order of their first calls; one that was not called follows the one registered before it."""
    places, last = [], -1
    for name, _ in units:
        place = calls.place(name)
        last = last if place is None else place
        places.append(last)
    ordered = sorted(zip(places, range(len(units)), units, strict=True), key=lambda entry: entry[:2])
    return [unit for _, _, (_, unit) in ordered]


def size_of(module: nn.Module) -> int:
    """Elements of all parameters."""
    weights: Iterator[Tensor] = module.parameters()
    return sum(weight.numel() for weight in weights)


def named_units(module: nn.Module, names: Sequence[str], calls: Calls) -> list[nn.Module]:
    """The modules whose class or name one of ``names`` is or matches (``encoder.layers.*``), the outermost of them.

    Raises WorkloadError for a name that no module has.
    """
    parts = {name: part for name, part in module.named_modules() if name and any(True for _ in part.parameters())}
    units: list[tuple[str, nn.Module]] = []
    for wanted in names:
        if not any(matches(wanted, name, part) for name, part in parts.items()):
            raise WorkloadError(
                f"workload.units: {wanted!r} is no class or name of a module with parameters; {near(wanted, parts)}"
            )
    for name, part in parts.items():
        nested = any(name.startswith(f"{unit}.") for unit, _ in units)
        if not nested and any(matches(wanted, name, part) for wanted in names):
            units.append((name, part))
    return in_order(units, calls)


def matches(wanted: str, name: str, part: nn.Module) -> bool:
    return type(part).__name__ == wanted or fnmatchcase(name, wanted)


def near(wanted: str, parts: dict[str, nn.Module]) -> str:
    """The nearest spellings, else all classes."""
    classes = sorted({type(part).__name__ for part in parts.values()})
    close = difflib.get_close_matches(wanted, [*classes, *parts], n=1)
    return f"did you mean {close[0]}?" if close else f"valid: {', '.join(classes[:12])}, or a pattern of names"

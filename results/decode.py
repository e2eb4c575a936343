"""Parsed JSON to dataclasses, every type checked; an error names the field.

A reader is made once for each type. It keeps no account of where it is: a value that does not fit gets its place on
the way out, from the innermost list or field outwards, so that reading thousands of samples costs little.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, Literal

from results.entries import Entry, types_of
from results.shown import shown

Reader = Callable[[Any], Any]
LARGEST = 2**62
"""Of whole numbers: twice it still fits a table's 64 bits."""
DEEPEST = 20


class Mismatch(ValueError):
    """A value that does not fit; ``where`` is its place below the value that was to be read."""

    def __init__(self, what: str, where: str = "") -> None:
        super().__init__(what, where)
        self.what, self.where = what, where

    def below(self, place: str) -> Mismatch:
        return Mismatch(self.what, place + self.where)


def decode(value: Any, kind: Any, where: str) -> Any:
    """Turns parsed JSON into ``kind`` (a dataclass, a container of them, or a plain type), checking every type.

    Raises ValueError for a value that does not fit; its message begins with the place, starting from ``where``.
    """
    try:
        return reader(kind)(value)
    except Mismatch as error:
        raise ValueError(f"{where}{error.where}: {error.what}") from None


@functools.cache
def reader(kind: Any) -> Reader:
    """The reader of values of ``kind``, which raises Mismatch."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return _plain
    if origin is Annotated:
        return _annotated(*typing.get_args(kind))
    if origin in (types.UnionType, typing.Union):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return _optional(reader(inner))
    if origin is Literal:
        return functools.partial(_one_of, typing.get_args(kind))
    if origin is list:
        return _list(reader(typing.get_args(kind)[0]), typing.get_args(kind)[0])
    if origin is dict:
        return _dict(reader(typing.get_args(kind)[1]))
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind)
    if typing.is_typeddict(kind):
        return _entries(kind)
    return _float if kind is float else functools.partial(expect, kind=kind)


def _optional(read: Reader) -> Reader:
    return lambda value: None if value is None else read(value)


def _one_of(valid: tuple[Any, ...], value: Any) -> Any:
    if value not in valid:
        raise Mismatch(f"{shown(value)} is not one of {', '.join(map(str, valid))}")
    return value


def _list(read: Reader, item: Any) -> Reader:
    def entries(value: Any) -> list[Any]:
        values = expect(value, list)
        return values if item is float and set(map(type, values)) <= {float} else _each(values, read)

    return entries


def _each(values: list[Any], read: Reader) -> list[Any]:
    items: list[Any] = []
    try:
        for entry in values:
            items.append(read(entry))
    except Mismatch as error:
        raise error.below(f"[{len(items)}]") from None
    return items


def _dict(read: Reader) -> Reader:
    return lambda value: _named(expect(value, dict), lambda _: read)


def _named(members: dict[str, Any], reader_of: Callable[[str], Reader]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    try:
        for name, entry in members.items():
            fields[name] = reader_of(name)(entry)
    except Mismatch as error:
        raise error.below(f".{name}") from None
    return fields


def _dataclass(kind: Any) -> Reader:
    fields = dataclasses.fields(kind)
    required = [
        entry.name
        for entry in fields
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]

    @functools.cache
    def readers() -> dict[str, Reader]:  # not before it is needed: a type may hold itself
        hints = typing.get_type_hints(kind)
        return {entry.name: reader(hints[entry.name]) for entry in fields}

    def whole(value: Any) -> Any:
        document, field_readers = expect(value, dict), readers()
        if not document.keys() <= field_readers.keys():
            raise Mismatch(f"unknown field {shown(min(document.keys() - field_readers.keys()))}")
        for name in required:
            if name not in document:
                raise Mismatch(f"field {name!r} is missing")
        return kind(**_named(document, field_readers.__getitem__))

    return whole


def _annotated(kind: Any, *notes: Any) -> Reader:
    read, declared = reader(kind), [note for note in notes if isinstance(note, Entry)]

    def bounded(value: Any) -> Any:
        for misfit in (entry.misfit(value) for entry in declared if value is not None):
            if misfit:
                raise Mismatch(misfit)
        return read(value)

    return bounded


def _entries(kind: Any) -> Reader:
    """Of a ``TypedDict``: declared entries are checked, unknown ones are plain JSON; the document stays as it is."""

    @functools.cache
    def readers() -> dict[str, Reader]:
        return {name: reader(hint) for name, hint in types_of(kind).items()}

    def whole(value: Any) -> Any:
        declared = readers()
        _named(expect(value, dict), lambda name: declared.get(name, _plain))
        return value

    return whole


def _float(value: Any) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        return float(expect(value, int))
    return float(expect(value, float))


def _plain(value: Any, depth: int = 0) -> Any:
    """Any JSON of sane size: neither nested without end nor with numbers of thousands of digits."""
    if depth > DEEPEST:
        raise Mismatch(f"nested more than {DEEPEST} deep")
    if isinstance(value, dict | list):
        read = functools.partial(_plain, depth=depth + 1)
        return _each(value, read) if isinstance(value, list) else _named(value, lambda _: read)
    return expect(value, int) if type(value) is int else value


def expect(value: Any, kind: type) -> Any:
    """The value, if it is of that plain type; Mismatch otherwise. True is no number."""
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise Mismatch(f"expected {kind.__name__}, found {type(value).__name__}")
    if kind is int and abs(int(value)) > LARGEST:  # type: ignore[call-overload]
        raise Mismatch(f"{shown(value)} is larger than any count of bytes, expected at most {LARGEST}")
    return value

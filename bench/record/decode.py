"""Parsed JSON to dataclasses, every type checked; an error names the field."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, Literal


def decode(value: Any, kind: Any, where: str) -> Any:
    """Turns parsed JSON into ``kind`` (a dataclass, a container of them, or a plain type), checking every type."""
    origin = typing.get_origin(kind)
    if kind is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in typing.get_args(kind):
            return None
        return decode(value, next(part for part in typing.get_args(kind) if part is not type(None)), where)
    if origin is Literal:
        if value not in typing.get_args(kind):
            raise ValueError(f"{where}: {value!r} is not one of {', '.join(map(str, typing.get_args(kind)))}")
        return value
    if origin is list:
        (item,) = typing.get_args(kind)
        return [decode(entry, item, f"{where}[{index}]") for index, entry in enumerate(expect(value, list, where))]
    if origin is dict:
        _, item = typing.get_args(kind)
        return {key: decode(entry, item, f"{where}.{key}") for key, entry in expect(value, dict, where).items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(expect(value, dict, where), kind, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return expect(value, kind, where)


_type_hints = functools.cache(typing.get_type_hints)


def _decode_dataclass(document: dict[str, Any], kind: Any, where: str) -> Any:
    hints = _type_hints(kind)
    fields = {entry.name: entry for entry in dataclasses.fields(kind)}
    unknown = sorted(set(document) - set(fields))
    if unknown:
        raise ValueError(f"{where}: unknown field {unknown[0]!r}")
    for name, entry in fields.items():
        required = entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
        if required and name not in document:
            raise ValueError(f"{where}: field {name!r} is missing")
    return kind(**{name: decode(value, hints[name], f"{where}.{name}") for name, value in document.items()})


def expect(value: Any, kind: type, where: str) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, found {type(value).__name__}")
    return value

"""How a setting is declared: a dataclass field with its help, bounds, role and labels; and which values it takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["setting", "task", "sweep", "instrument"]
"""What a setting does to a configuration:

- ``setting``: a choice that is compared: stage, bucket size, precision, ...
- ``task``: what work is done. Settings are compared only between equal tasks.
- ``sweep``: one value for the whole sweep, which changes no measurement.
- ``instrument``: adds a measurement in a launch of its own; results with and without it are compared.
"""


@dataclass(frozen=True)
class Info:
    """The declaration of a setting in addition to its type and default; in the metadata of its field."""

    help: str
    """Effect, unit, and what null means."""
    choices: tuple[str, ...] = ()
    min: float | None = None
    above: float | None = None
    max: float | None = None
    form: tuple[Callable[[str], float], str] | None = None
    """For text that stands for a number: its reader, which raises ValueError, and what is valid, in words."""
    role: Role = "setting"
    optional: bool = False
    """Whether an engine may lack the setting; its default then asks for nothing."""
    heading: str = ""
    """Column heading in tables; empty for the setting's name."""
    label: str = ""
    """A value in words, such as ``bucket {} MiB``; empty for ``NAME {}``."""
    label_unset: str = ""
    """The label where the value is null; empty for ``NAME default``."""


def setting(default: Any, help: str, *choices: str, **facts: Any) -> Any:
    """A dataclass field for a setting, with ``Info(help, choices, **facts)`` as its metadata."""
    metadata = {"info": Info(help, choices, **facts)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


def info(spec: dataclasses.Field[Any]) -> Info:
    """The facts about a setting's field."""
    facts: Info = spec.metadata["info"]
    return facts


def each_setting(config: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Dotted path, field and value of every setting of a config dataclass, nested ones included."""
    for spec in dataclasses.fields(config):
        value = getattr(config, spec.name)
        if dataclasses.is_dataclass(value):
            yield from each_setting(value, f"{prefix}{spec.name}.")
        else:
            yield prefix + spec.name, spec, value


TYPES: dict[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
    "str": (str,),
    "list[str]": (list,),
    "dict[str, Any]": (dict,),
}


def type_name(spec: dataclasses.Field[Any]) -> str:
    """Such as ``int``, also where the setting may be null."""
    return str(spec.type).removesuffix(" | None")


def is_valid(spec: dataclasses.Field[Any], value: Any) -> bool:
    """Whether ``value`` has the type of the setting and lies within its bounds."""
    if value is None:
        return str(spec.type).endswith("| None")
    limits, types = info(spec), TYPES[type_name(spec)]
    number = value if isinstance(value, int | float) else 0
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    return (
        math.isfinite(number)
        and not (limits.choices and str(value) not in limits.choices)
        and not (limits.min is not None and number < limits.min)
        and not (limits.above is not None and number <= limits.above)
        and not (limits.max is not None and number > limits.max)
        and not (limits.form and not has_form(str(value), limits.form[0]))
    )


def has_form(text: str, read: Callable[[str], float]) -> bool:
    try:
        read(text)
    except ValueError:
        return False
    return True


def valid_values(spec: dataclasses.Field[Any]) -> str:
    """The valid values of a setting, in words."""
    kind, facts = type_name(spec), info(spec)
    if facts.choices:
        words = ", ".join(facts.choices)
    elif facts.form:
        words = facts.form[1]
    elif kind == "bool":
        words = "true, false"
    else:
        kinds = {"int": "a whole number", "float": "a number", "str": "text", "list[str]": "a list such as [a,b]"}
        words = kinds.get(kind, kind)
        if facts.min is not None:
            words += f" of at least {facts.min:g}"
        if facts.above is not None:
            words += f" above {facts.above:g}"
        if facts.max is not None:
            words += f", at most {facts.max:.10g}"
    return words + (", null" if str(spec.type).endswith("| None") else "")

"""Models, data and losses that engines train."""

from __future__ import annotations

import difflib
import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workloads.base import Workload, WorkloadError, first_line

__all__ = ["Workload", "WorkloadError", "is_workload", "load", "resolve"]

_ALWAYS_PASSED = ("seed", "data_dir")
MOST_NAMES = 12
"""That an error lists."""
_PROTOCOL = ("info", "build", "units", "batch", "loss")


def load(factory: str, *, seed: int, data_dir: str | None, options: dict[str, Any]) -> Workload:
    """Makes the workload that ``factory`` (``module:attribute``) names, any importable module's.

    Raises WorkloadError where the factory cannot be found or does not take an option.
    """
    make = resolve(factory, f"factory {factory}", _is_factory)
    _check_arguments(factory, make, options)
    made = make(seed=seed, data_dir=data_dir, **options)
    if not is_workload(made):
        missing = [name for name in _PROTOCOL if not hasattr(made, name)]
        raise WorkloadError(f"factory {factory}: what it made has no {missing[0]!r}; valid: {', '.join(_PROTOCOL)}")
    workload: Workload = made
    return workload


def is_workload(made: object) -> bool:
    """Whether ``made`` has the members of ``workloads.base.Workload``."""
    return all(hasattr(made, name) for name in _PROTOCOL)


def resolve(
    path: str, named: str, suits: Callable[[Callable[..., Any]], bool] = lambda value: True
) -> Callable[..., Any]:
    """The callable at ``path`` (``module:attribute``, ``module:attribute.attribute``).

    Raises WorkloadError, which calls it ``named`` and lists what ``suits`` where there is no such callable.
    """
    module_name, _, attributes = path.partition(":")
    if not module_name or not attributes:
        raise WorkloadError(f"{named} is not valid; valid: module:attribute, as in workloads.digits:Digits")
    try:
        place: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script ends where its arguments are missing
        raise WorkloadError(
            f"{named}: cannot import {module_name} ({type(error).__name__}: {first_line(error)}); "
            f"valid: a module on Python's path{_clash(module_name)}"
        ) from error
    where = module_name
    *outer, last = attributes.split(".")
    for attribute in (*outer, last):
        inside, place = place, getattr(place, attribute, None)
        if place is None or (attribute is last and not callable(place)):
            names = _names_in(inside, attribute, suits)
            raise WorkloadError(f"{named}: {where} has no callable {attribute!r}; {names}")
        where += f".{attribute}"
    make: Callable[..., Any] = place
    return make


def _names_in(place: Any, wanted: str, suits: Callable[[Callable[..., Any]], bool]) -> str:
    """Suggestions for a misspelt ``wanted``, and the other names of the module or class."""
    public = {name: getattr(place, name, None) for name in vars(place) if not name.startswith("_")}
    members = {name: value for name, value in public.items() if callable(value)}
    near = difflib.get_close_matches(wanted, members, n=1)
    if not near:
        near = [name for name in members if name.lower() == wanted.lower()]
    own = [name for name, value in members.items() if getattr(value, "__module__", None) == place.__name__]
    valid = [name for name in own if suits(members[name])] or own or list(members)
    shown = ", ".join(valid[:MOST_NAMES]) + (f" and {len(valid) - MOST_NAMES} more" if len(valid) > MOST_NAMES else "")
    return f"did you mean {near[0]!r}? valid: {shown}" if near else f"valid: {shown or 'none'}"


def _clash(module_name: str) -> str:
    """Warns where a local folder has the name of a package that was imported from another place."""
    top = module_name.partition(".")[0]
    folder, imported = Path.cwd() / top, getattr(sys.modules.get(top), "__file__", None)
    if imported is None or not folder.is_dir() or Path(imported).resolve().is_relative_to(folder.resolve()):
        return ""
    return f". The folder {folder} is hidden by the package {top} in {Path(imported).parent}: rename the folder"


def _is_factory(value: Callable[..., Any]) -> bool:
    try:
        return set(_ALWAYS_PASSED) <= set(inspect.signature(value).parameters)
    except ValueError:  # a builtin that does not say
        return False


def _check_arguments(factory: str, make: Callable[..., Any], options: dict[str, Any]) -> None:
    parameters = inspect.signature(make).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    by_name = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    for name in _ALWAYS_PASSED:
        if name not in by_name:
            raise WorkloadError(f"factory {factory} does not take {name!r}; valid: (*, seed, data_dir, OPTIONS)")
    valid = [name for name in by_name if name not in _ALWAYS_PASSED]
    for name in options:
        if name not in valid:
            raise WorkloadError(f"factory {factory} has no option {name!r}; valid: {', '.join(valid) or 'none'}")
    for name in valid:
        if by_name[name].default is inspect.Parameter.empty and name not in options:
            raise WorkloadError(f"factory {factory} needs the option {name!r}; valid: {', '.join(valid)}")

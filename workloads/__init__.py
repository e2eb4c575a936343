"""Models, data and losses that engines train."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from workloads.base import Workload, WorkloadError

__all__ = ["Workload", "WorkloadError", "is_workload", "load", "resolve"]

_ALWAYS_PASSED = ("seed", "data_dir")
_PROTOCOL = ("info", "build", "units", "batch", "loss")


def load(factory: str, *, seed: int, data_dir: str | None, options: dict[str, Any]) -> Workload:
    """Makes the workload that ``factory`` (``module:attribute``) names, any importable module's.

    Raises WorkloadError where the factory cannot be found or does not take an option.
    """
    make = resolve(factory, f"factory {factory}")
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


def resolve(path: str, named: str) -> Callable[..., Any]:
    """The callable at ``path`` (``module:attribute``). Raises WorkloadError, which calls it ``named``."""
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise WorkloadError(f"{named} is not valid; valid: module:attribute, as in workloads.digits:Digits")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # a script ends where its arguments are missing
        raise WorkloadError(
            f"{named}: cannot import {module_name} ({type(error).__name__}: {error}); valid: a module on Python's path"
        ) from error
    make: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(make):
        own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module_name]
        found = [name for name in own if callable(vars(module)[name])]
        valid = [name for name in found if _is_factory(vars(module)[name])] or found
        raise WorkloadError(
            f"{named}: {module_name} has no callable {attribute!r}; valid: {', '.join(valid) or 'none'}"
        )
    return make


def _is_factory(value: Callable[..., Any]) -> bool:
    return set(_ALWAYS_PASSED) <= set(inspect.signature(value).parameters)


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

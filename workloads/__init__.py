"""Models, data and losses that engines train."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from workloads.base import Workload, WorkloadError

__all__ = ["Workload", "WorkloadError", "load"]

_ALWAYS_PASSED = ("seed", "data_dir")
_PROTOCOL = ("info", "build", "units", "batch", "loss")


def load(factory: str, *, seed: int, data_dir: str | None, options: dict[str, Any]) -> Workload:
    """Makes the workload that ``factory`` (``module:attribute``) names, any importable module's.

    Raises WorkloadError where the factory cannot be found or does not take an option.
    """
    make = _resolve(factory)
    _check_arguments(factory, make, options)
    made = make(seed=seed, data_dir=data_dir, **options)
    missing = [name for name in _PROTOCOL if not hasattr(made, name)]
    if missing:
        raise WorkloadError(f"factory {factory}: what it made has no {missing[0]!r}; valid: {', '.join(_PROTOCOL)}")
    workload: Workload = made
    return workload


def _resolve(factory: str) -> Callable[..., Any]:
    module_name, _, attribute = factory.partition(":")
    if not module_name or not attribute:
        raise WorkloadError(f"factory {factory!r} is not valid; valid: module:attribute, as in workloads.digits:Digits")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise WorkloadError(
            f"factory {factory}: cannot import {module_name} ({error}); valid: a module on Python's path"
        ) from error
    make: Callable[..., Any] | None = getattr(module, attribute, None)
    if not callable(make):
        valid = ", ".join(name for name in vars(module) if _is_factory(module, name)) or "none"
        raise WorkloadError(f"factory {factory}: {module_name} has no callable {attribute!r}; valid: {valid}")
    return make


def _is_factory(module: ModuleType, name: str) -> bool:
    value = getattr(module, name)
    if not callable(value) or getattr(value, "__module__", None) != module.__name__:
        return False
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

"""Documents of earlier versions of the record's format, turned into ones of this version before they are read.

History of ``SCHEMA_VERSION``:
  1  first version
  2  ``model.compute_memory`` instead of ``model.activation_bytes``, which left out temporaries
  3  warnings ``background_load`` and ``drift`` instead of ``foreign_process`` and ``not_steady``; ``last_output`` of a
     failed rank instead of ``last_words``; ``multiple_of`` and ``max_batch`` of a search instead of ``granule`` and
     ``most``
  4  ``background_processes`` of a launch instead of ``foreign``, and its conditions ``background_cpu_s`` and
     ``gpu_background_processes`` instead of ``foreign_cpu_s`` and ``gpu_foreign_processes``; ``model.step`` has what
     the reference observed of a step, which ``model`` itself had
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SCHEMA_VERSION = 4

WARNINGS = {"foreign_process": "background_load", "not_steady": "drift"}
"""Ids of warnings before version 3, and since."""
SEARCH = {"granule": "multiple_of", "most": "max_batch"}
RANK_END = {"last_words": "last_output"}
CONDITIONS = {"foreign_cpu_s": "background_cpu_s", "gpu_foreign_processes": "gpu_background_processes"}
"""Counters before version 4, and since."""
INTERFERENCE = {"foreign": "background_processes", "foreign_by_host": "background_processes_by_host"}
OF_STEP = (
    *("skipped", "uneven", "differentiates", "used_outside", "used_early", "used_bare", "in_threads", "read_outside"),
    *("first_use", "random", "eval_mode", "own_buffers", "rank_queries", "synchronized_norms"),
)
"""Fields of ``model`` before version 4, of ``model.step`` since."""


def upgraded(document: Mapping[str, Any]) -> dict[str, Any]:
    """A record of any version as one of this version. What does not fit is left as it is, for the reader to name."""
    version = document["schema_version"]
    record = {**document, "schema_version": SCHEMA_VERSION}
    if version < 2:
        _change(record, "model", lambda model: _without(model, "activation_bytes"))
    if version < 3:
        _change_each(record, "verdicts", lambda verdict: _renamed(verdict, WARNINGS))
        _change(record, "verdict_reasons", lambda reasons: with_names(reasons, WARNINGS))
        _change(record, "search", lambda search: with_names(search, SEARCH))
        _change_each(record, "failure", lambda end: with_names(end, RANK_END))
    if version < 4:
        _change(record, "model", with_step)
        _change(record, "ceiling", with_background)
        _change_each(record, "launches", with_background)
        _change(record, "attribution", _with_background_of_silent)
    return record


def with_background(measured: Any) -> Any:
    """What has interference (a launch, the measured peak, a rank's counters) with the names of version 4."""
    if not isinstance(measured, dict):
        return measured
    measured = with_names(measured, INTERFERENCE)
    _change(measured, "conditions", lambda counters: with_names(counters, CONDITIONS))
    _change_each(measured, "conditions_by_host", lambda counters: with_names(counters, CONDITIONS))
    return measured


def _with_background_of_silent(attribution: Any) -> Any:
    if not isinstance(attribution, dict):
        return attribution
    attribution = dict(attribution)
    _change_each(attribution, "silent", with_background)
    return attribution


def with_step(model: Any) -> Any:
    """A model with the properties of its step in a field of their own; one that has them so is left as it is."""
    if not isinstance(model, dict) or "step" in model:
        return model
    return _without(model, *OF_STEP) | {"step": {name: model[name] for name in OF_STEP if name in model}}


def with_names(document: Any, names: Mapping[str, str]) -> Any:
    return {names.get(key, key): value for key, value in document.items()} if isinstance(document, dict) else document


def _without(document: Any, *names: str) -> Any:
    if not isinstance(document, dict):
        return document
    return {name: value for name, value in document.items() if name not in names}


def _renamed(name: Any, names: Mapping[str, str]) -> Any:
    return names.get(name, name) if isinstance(name, str) else name


def _change(document: dict[str, Any], field: str, change: Callable[[Any], Any]) -> None:
    if field in document:
        document[field] = change(document[field])


def _change_each(document: dict[str, Any], field: str, change: Callable[[Any], Any]) -> None:
    if isinstance(document.get(field), list):
        document[field] = [change(entry) for entry in document[field]]

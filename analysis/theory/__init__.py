"""Predicted memory and traffic of an engine, from shapes and settings alone.

All that analysis knows of an engine is in one object, ``THEORY`` of the module NAME_engine. An engine without one
has no prediction (None), which is not an error.
"""

from __future__ import annotations

from analysis.theory.engines import ENGINES, theory_of
from analysis.theory.paper import paper_sent, paper_state
from analysis.theory.setting import Setting, elements, setting
from analysis.theory.theory import Copied, Theory
from results.record import Record

__all__ = [
    "ENGINES",
    "Copied",
    "Theory",
    "has_exact_peak",
    "host_bytes_counted",
    "predict_cast",
    "predict_copied",
    "predict_counted_host",
    "predict_host_state",
    "predict_paper",
    "predict_rest",
    "predict_sent",
    "predict_state",
    "predict_transient",
    "predicts_handover",
    "theory_of",
]


def predicts_handover(record: Record) -> bool:
    """Whether ``predict_transient`` includes the gradient that autograd hands over."""
    pair = _theory_and_setting(record)
    return pair is not None and pair[1].stage in pair[0].handover


def predict_state(record: Record) -> dict[str, int] | None:
    """Bytes of model state in device memory by kind (params, master, grads, optimizer, buffers) on the rank that holds
    most."""
    pair = _theory_and_setting(record)
    return pair[0].state(pair[1]) if pair else None


def predict_host_state(record: Record) -> dict[str, int] | None:
    """The same in host memory; empty without offload."""
    pair = _theory_and_setting(record)
    return pair[0].host(pair[1]) if pair else None


def predict_copied(record: Record) -> Copied | None:
    """Bytes that a rank copies between device and host memory per step; None without offload."""
    pair = _theory_and_setting(record)
    return pair[0].copied(pair[1]) if pair else None


def host_bytes_counted(setting: Setting, theory: Theory) -> int | None:
    """Bytes of model state in host memory that the allocator of a rank's device counts: on a CPU, all; None where it
    counts them and there is no formula."""
    if setting.device != "cpu":
        return 0
    state = theory.host(setting)
    return None if state is None else sum(state.values())


def predict_rest(record: Record) -> int | None:
    """Bytes of model state between steps, as the device's allocator counts them: all but the gradients, where the
    update frees them."""
    state, pair = predict_state(record), _theory_and_setting(record)
    if state is None or pair is None:
        return None
    theory, cell = pair
    in_host = host_bytes_counted(cell, theory)
    if in_host is None:
        return None
    kept = cell.stage in theory.gradients_kept and cell.options.get("gradient_as_bucket_view", True)
    freed = 0 if kept else state["grads"]
    if cell.device == "cpu" and not theory.host_gradients_kept:
        freed += (theory.host(cell) or {}).get("grads", 0)
    return sum(state.values()) + in_host - freed


def predict_counted_host(record: Record) -> int | None:
    """``host_bytes_counted`` of a record; None where the engine has no formula."""
    pair = _theory_and_setting(record)
    return host_bytes_counted(pair[1], pair[0]) if pair else None


def predict_transient(record: Record) -> int | None:
    """Bytes that the engine needs at most in addition to model state and activations."""
    pair = _theory_and_setting(record)
    return pair[0].transient(pair[1]) if pair else None


def predict_cast(record: Record) -> int:
    """Bytes of autocast's 2-byte copies of the weights, which a transient prediction counts in."""
    cell = setting(record)
    return 2 * elements(cell.parameters) if cell and cell.precision.startswith("amp_") else 0


def predict_sent(record: Record) -> float | None:
    """Bytes sent per rank per step by bandwidth-optimal collectives."""
    pair = _theory_and_setting(record)
    return pair[0].sent(pair[1]) if pair else None


def predict_paper(record: Record) -> tuple[float, float] | None:
    """Bytes of model state and bytes sent, per rank, by the paper's formulas for any engine: perfect partition.

    None where several ranks compute a replica: the paper has no model parallelism.
    """
    cell = setting(record)
    if cell is None or int(record.resolved.get("ranks_per_replica") or 1) > 1:
        return None
    widths, count = cell.widths, elements(cell.parameters)
    pairs = cell.by_optimizer(cell.parameters)
    kept = sum(rule.moments * elements(chosen) * (1 if rule.has_8_bits else widths.moment) for rule, chosen in pairs)
    optimizer = widths.master + kept / max(1, count)
    state = paper_state(count, cell.stage, cell.world_size, param=widths.param, grad=widths.grad, optimizer=optimizer)
    return state, paper_sent(count, cell.stage, cell.world_size, param=widths.param, grad=widths.grad)


def has_exact_peak(record: Record) -> bool:
    """Whether the peak is the same in each run."""
    theory = ENGINES.get(str(record.config["engine"]["name"]))
    return theory is not None and record.config["stage"] in theory.exact_peak


def _theory_and_setting(record: Record) -> tuple[Theory, Setting] | None:
    cell = setting(record)
    if cell and cell.compression == "powersgd":
        return None  # what it keeps and sends depends on which gradients it finds worth compressing
    theory = theory_of(cell) if cell else None
    return (theory, cell) if theory and cell else None

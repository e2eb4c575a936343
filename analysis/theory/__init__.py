"""What an engine should keep in memory and send: predictions from shapes and settings, nothing measured.

``ENGINES`` maps an engine's name to its theory. An engine that is not in it has no prediction (None),
which is not an error; to add one, write a module beside ``torch_engine`` and a line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from analysis.theory import deepspeed_engine, native_engine, parameter_server, torch_engine
from analysis.theory.paper import paper_sent, paper_state
from analysis.theory.setting import Setting, elements, setting
from results.record import Record

__all__ = [
    *("ENGINES", "Theory", "predict_cast", "predict_paper", "predict_rest", "predict_sent", "predict_state"),
    "predict_transient",
    "predicts_handover",
]


@dataclass(frozen=True)
class Theory:
    """What is known of one engine, as functions of a Setting."""

    state: Callable[[Setting], dict[str, int] | None]
    """Bytes by kind on the rank that holds most, between backward and update; None where it has no formula."""
    transient: Callable[[Setting], int]
    """Most bytes that the engine itself holds beside its state and the activations at any moment of a step."""
    sent: Callable[[Setting], float]
    """Bytes that a rank sends per step if every collective is bandwidth-optimal (mean over ranks)."""


ENGINES = {
    "deepspeed": Theory(deepspeed_engine.state, deepspeed_engine.transient, deepspeed_engine.sent),
    "native": Theory(native_engine.state, native_engine.transient, native_engine.sent),
    "parameter_server": Theory(parameter_server.state, parameter_server.transient, parameter_server.sent),
    "torch": Theory(torch_engine.state, torch_engine.transient, torch_engine.sent),
}

GRADIENTS_KEPT = {"deepspeed": (3,), "native": (0, 1), "parameter_server": (0,), "torch": (0, 1)}
"""Stages at which an engine's gradients have memory of their own that outlives the update: torch's, as views of DDP's
buckets."""


HANDOVER_PREDICTED = {"torch": (2, 3)}
"""Stages at which an engine's transient bytes include the gradient that autograd hands over: fully_shard keeps the
gradients of a whole unit."""


def predicts_handover(record: Record) -> bool:
    """Whether ``predict_transient`` includes the gradient that autograd hands over."""
    known = setting(record)
    return known is not None and known.stage in HANDOVER_PREDICTED.get(known.engine, ())


def predict_state(record: Record) -> dict[str, int] | None:
    """Bytes of model state by kind (params, master, grads, optimizer, buffers) on the rank that holds most."""
    found = _theory(record)
    return found[0].state(found[1]) if found else None


def predict_rest(record: Record) -> int | None:
    """Bytes of model state between steps: all but the gradients, where the update frees them."""
    state, known = predict_state(record), setting(record)
    if state is None or known is None:
        return None
    kept = known.stage in GRADIENTS_KEPT.get(known.engine, ()) and known.options.get("gradient_as_bucket_view", True)
    return sum(state.values()) - (0 if kept else state["grads"])


def predict_transient(record: Record) -> int | None:
    """Bytes that the engine needs at most beside model state and activations."""
    found = _theory(record)
    return found[0].transient(found[1]) if found else None


def predict_cast(record: Record) -> int:
    """Bytes of autocast's 2-byte copies of the weights, which a transient prediction counts in."""
    known = setting(record)
    return 2 * elements(known.parameters) if known and known.precision.startswith("amp_") else 0


def predict_sent(record: Record) -> float | None:
    """Bytes sent per rank per step by bandwidth-optimal collectives."""
    found = _theory(record)
    return found[0].sent(found[1]) if found else None


def predict_paper(record: Record) -> tuple[float, float] | None:
    """Bytes of model state and bytes sent, per rank, by the paper's formulas for any engine: perfect partition.

    None where several ranks compute a replica: the paper has no model parallelism.
    """
    known = setting(record)
    if known is None or int(record.resolved.get("ranks_per_replica") or 1) > 1:
        return None
    widths, count = known.widths, elements(known.parameters)
    optimizer = widths.master + known.optimizer.moments * widths.moment
    kept = paper_state(count, known.stage, known.world_size, param=widths.param, grad=widths.grad, optimizer=optimizer)
    return kept, paper_sent(count, known.stage, known.world_size, param=widths.param, grad=widths.grad)


def _theory(record: Record) -> tuple[Theory, Setting] | None:
    known = setting(record)
    if known and known.compression == "powersgd":
        return None  # what it keeps and sends depends on which gradients it finds worth compressing
    theory = ENGINES.get(known.engine) if known else None
    return (theory, known) if theory and known else None

"""The contract of a workload (``workloads.base.Workload``), checked once on the built module and two samples.

Everything else relies on it: ranks and the single process build the module again, and a batch is made again wherever
it is needed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.engines.batches import tensors_of
from bench.engines.precision import autocast, cast_inputs, cast_module, weight_dtype
from bench.measure.memory.step import stored
from bench.worker.bits import same_bits
from bench.worker.global_state import watched
from bench.worker.own_state import check_group
from workloads.base import Workload, WorkloadError

SAMPLES = 2  # BatchNorm needs more than one


def checked_module(work: Workload, factory: str, precision: str = "fp32") -> nn.Module:
    """A built module of a workload that keeps its promises, as trained in ``precision``.

    Raises WorkloadError, which names ``factory``; EngineUnsupported for weights that ``precision`` cannot train.
    """
    first, second = work.build(), work.build()
    reject_untrainable(first, factory)
    reject_shared(first, second, factory)
    reject_other_weights(first, second, factory)
    with watched(factory):  # also puts random generators back
        reject_impure_batches(work, factory)
        reject_no_gradient(work, cast_module(first, precision), factory, precision)
    return second


def reject_untrainable(module: nn.Module, factory: str) -> None:
    """Of weights that no optimizer can update."""
    for name, weight in module.named_parameters():
        if isinstance(weight, nn.UninitializedParameter):
            raise WorkloadError(
                f"{factory} returned a module whose weight {name} has no shape yet (a lazy module); "
                "valid: a module that was called once on a batch before it is returned"
            )
        if weight.requires_grad and weight.layout is torch.strided and overlaps(weight):
            raise WorkloadError(
                f"{factory} returned a module with elements of {name} that share memory (strides {weight.stride()}), "
                "so no update can be written to them; valid: a weight with memory for each element (clone it)"
            )


def overlaps(weight: Tensor) -> bool:
    """Whether elements are the same memory, as of an expanded tensor."""
    return any(size > 1 and stride == 0 for size, stride in zip(weight.shape, weight.stride(), strict=True))


def reject_shared(first: nn.Module, second: nn.Module, factory: str) -> None:
    if first is second:
        raise WorkloadError(
            f"{factory} returned the same module twice, so its second training would go on from the first; "
            "valid: a function that builds a new module each time it is called"
        )
    kept = {id(weight) for weight in first.parameters()} | places(first).keys()
    for name, weight in second.named_parameters():
        if id(weight) in kept or not places_of(weight).isdisjoint(kept):
            raise WorkloadError(
                f"{factory} returned two modules that share the weight {name}; "
                "valid: a function that builds new weights at each call"
            )


def places(module: nn.Module) -> dict[int, str]:
    """The memory of the parameters, by address."""
    return {place: name for name, weight in module.named_parameters() for place in places_of(weight)}


def places_of(weight: Tensor) -> set[int]:
    if isinstance(weight, nn.UninitializedParameter) or weight.is_meta:
        return set()
    return {part.untyped_storage().data_ptr() for part in stored(weight.detach()) if part.numel()}


def reject_other_weights(first: nn.Module, second: nn.Module, factory: str) -> None:
    """Of parameters and buffers, compared bit by bit."""
    one, other = first.state_dict(keep_vars=True), second.state_dict(keep_vars=True)
    if one.keys() != other.keys():
        name = sorted(one.keys() ^ other.keys())[0]
        raise WorkloadError(f"{factory} returned a module with {name} and one without it; valid: the same each time")
    for name, tensor in one.items():
        if not isinstance(tensor, Tensor) or isinstance(tensor, nn.UninitializedParameter) or tensor.is_meta:
            continue
        if not same_bits(tensor, other[name]):
            raise WorkloadError(
                f"{factory} returned a module with other values of {name} the second time; valid: the same each time. "
                "Draw them from torch's default generator, which is seeded, or seed your own"
            )


def reject_impure_batches(work: Workload, factory: str) -> None:
    first = [entry.clone() for entry in tensors_of(work.batch(range(SAMPLES)))]
    work.batch(range(SAMPLES, 2 * SAMPLES))
    again = tensors_of(work.batch(range(SAMPLES)))
    if len(first) != len(again) or not all(map(same_bits, first, again)):
        raise WorkloadError(
            f"{factory}: batch() returned other samples for the same indices the second time; "
            "valid: a batch depends on its indices and the seed alone"
        )


def loss_of_fixed_batch(work: Workload, module: nn.Module, factory: str, precision: str) -> Tensor:
    """The loss of two samples. Raises WorkloadError if it is no scalar, or changes the samples whenever it is computed:
    a timed launch trains on the same batches again."""
    batch = cast_inputs(work.batch(range(SAMPLES)), weight_dtype(precision))
    for is_again in (False, True):
        before = [entry.detach().clone() for entry in tensors_of(batch)]
        with autocast(precision, "cpu"):
            try:
                loss = work.loss(module, batch)
            except (RuntimeError, ValueError) as error:
                check_group(factory, error)
                raise
        if all(map(same_bits, before, tensors_of(batch))):
            break
        if is_again:  # a change such as ReLU's leaves them alone the second time
            raise WorkloadError(
                f"{factory}: the loss changes its batch in place, so that the next step on it trains on other samples; "
                "valid: a loss that computes with a copy"
            )
    if not isinstance(loss, Tensor) or loss.shape != () or not loss.is_floating_point():
        what = f"{loss.dtype} of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
        raise WorkloadError(
            f"{factory}: the loss is {what}; valid: a floating-point scalar, the mean over the samples of its batch"
        )
    return loss


def reject_no_gradient(work: Workload, module: nn.Module, factory: str, precision: str) -> None:
    loss = loss_of_fixed_batch(work, module, factory, precision)
    if not loss.requires_grad:
        raise WorkloadError(
            f"{factory}: the loss depends on no weight that requires a gradient, so no update would change anything; "
            "valid: a loss computed from the module's outputs, not detached and not under torch.no_grad()"
        )
    loss.backward()
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    reached = [weight.grad for weight in weights if weight.grad is not None]
    if not any(bool(gradient.count_nonzero()) for gradient in map(dense, reached)):
        raise WorkloadError(
            f"{factory}: the gradient of every weight is {'zero' if reached else 'missing'}, so no update would change "
            "anything; valid: a loss that depends on the weights"
        )


def dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.layout is torch.sparse_coo else gradient


def in_eval_mode(module: nn.Module) -> list[str]:
    """The outermost parts that are in eval mode though they are trained; ``the module`` for all of it."""
    names: list[str] = []
    for name, part in module.named_modules():
        inside = any(outer == "the module" or name.startswith(f"{outer}.") for outer in names)
        if not part.training and not inside and any(weight.requires_grad for weight in part.parameters()):
            names.append(name or "the module")
    return names

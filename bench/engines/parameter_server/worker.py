"""The engine in a rank: backward into one flat gradient, one push and one pull a step."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bench.engines.base import Batch, LossFunction, RankContext
from bench.engines.parameter_server.protocol import Servers, lay_out_slices
from bench.engines.precision import autocast
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.views import view_like
from results.resolved import EngineDescription


class ServedDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    mode: str
    staleness: int | None
    servers: int
    push_bytes: int
    """Gradients that a worker sends per step."""
    pull_bytes: int
    """Parameters that it receives per step."""
    buffers: str


class Worker:
    """Parameters and gradients are views of two flat tensors; each server has a slice.

    On a GPU both have a copy in pinned memory of the host, which is what travels.
    """

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        self.spec = spec
        self.module = module
        self.device_type = context.device.type
        trainable = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
        reject_parameters(trainable)
        counts = [weight.numel() for weight in trainable.values()]
        self.layout = lay_out_slices(counts, spec.options["servers"])
        self.parameters = torch.zeros(self.layout.size, device=context.device)
        self.gradients = torch.zeros_like(self.parameters)
        for weight, slot in zip(trainable.values(), self.layout.slots, strict=True):
            view = view_like(self.parameters[slot.elements], weight)
            view.copy_(weight.detach())
            weight.data = view
            weight.grad = view_like(self.gradients[slot.elements], weight)
        self.host_parameters, self.host_gradients = on_host(self.parameters), on_host(self.gradients)
        self.servers = Servers(context.store, context.rank, context.world_size, self.layout)
        copy(self.parameters, self.host_parameters)
        self.servers.join(self.host_parameters)
        copy(self.host_parameters, self.parameters)

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        with autocast(self.spec.precision, self.device_type):
            loss = loss_fn(self.module, batch)
        (loss / self.spec.accumulate).backward()
        return loss.detach()

    def optimizer_step(self) -> None:
        """The update is the servers': pushes the gradient, waits for the parameters, and clears the gradient."""
        copy(self.gradients, self.host_gradients)
        self.servers.push_and_pull(self.host_gradients, self.host_parameters)
        copy(self.host_parameters, self.parameters)
        self.gradients.zero_()

    def state(self) -> dict[str, list[Tensor]]:
        """The optimizer is the servers'; they count its state."""
        frozen = [weight for weight in self.module.parameters() if not weight.requires_grad]
        return {
            "params": [self.parameters, *frozen],
            "grads": [self.gradients],
            "optimizer": [],
            "buffers": list(self.module.buffers()),
        }

    def full_state_dict(self) -> dict[str, Tensor]:
        """The weights of this worker; in async and bounded mode the servers' may have moved on."""
        return {name: weight.detach() for name, weight in self.module.named_parameters()}

    def describe(self) -> ServedDescription:
        options = self.spec.options
        return {
            "library": f"parameter_server, torch {torch.__version__}",
            "mode": options["mode"],
            "staleness": options["staleness"],
            "servers": options["servers"],
            "push_bytes": self.gradients.nbytes,
            "pull_bytes": self.parameters.nbytes,
            "overlap": False,
            "reduce_dtype": "float32",
            "buffers": "local to each rank",
        }

    def teardown(self) -> None:
        """Tells the servers that nothing more will come."""
        self.servers.leave()


def reject_parameters(trainable: dict[str, nn.Parameter]) -> None:
    """Raises EngineUnsupported, by name, for parameters that cannot lie in a flat fp32 tensor."""
    if not trainable:
        raise EngineUnsupported("engine=parameter_server: the module has no parameter that requires a gradient")
    for name, weight in trainable.items():
        if weight.dtype != torch.float32 or weight.is_meta or weight.layout != torch.strided:
            raise EngineUnsupported(
                f"engine=parameter_server: {name} is {weight.dtype} {weight.layout} on {weight.device}; "
                "servers keep dense fp32 parameters"
            )


def on_host(tensor: Tensor) -> Tensor:
    """The host memory that is sent and received for the tensor: the tensor itself if it is on the host."""
    return torch.empty_like(tensor, device="cpu", pin_memory=True) if tensor.is_cuda else tensor


def copy(source: Tensor, to: Tensor) -> None:
    if source is not to:
        to.copy_(source)

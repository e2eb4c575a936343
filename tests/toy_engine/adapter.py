"""Whole replicas, and nothing clever."""

import torch.distributed as dist
from torch import nn

from bench.engines.optimizers import build_optimizer
from bench.engines.precision import autocast


class Toy:
    def setup(self, module, units, spec, context):
        self.module, self.spec, self.context = module, spec, context
        self.weights = [weight for weight in module.parameters() if weight.requires_grad]
        self.optimizer = build_optimizer(spec, self.weights)

    def forward_backward(self, batch, loss_fn, *, sync):
        with autocast(self.spec.precision, self.context.device.type):
            loss = loss_fn(self.module, batch)
        (loss / self.spec.accumulate).backward()
        return loss.detach()

    def optimizer_step(self):
        for weight in self.weights:
            dist.all_reduce(weight.grad)
            weight.grad /= self.context.world_size
        if self.spec.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.weights, self.spec.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self):
        moments = [entry for state in self.optimizer.state.values() for entry in state.values()]
        return {"params": list(self.module.parameters()), "grads": [w.grad for w in self.weights], "optimizer": moments}

    def full_state_dict(self):
        return {name: weight.detach() for name, weight in self.module.named_parameters()}

    def describe(self):
        return {}

    def teardown(self): ...


create = Toy

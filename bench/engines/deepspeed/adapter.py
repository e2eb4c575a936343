"""DeepSpeed's ZeRO behind the engine protocol."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule

from bench.engines.activation_checkpointing import checkpoint_units
from bench.engines.base import Batch, Engine, LossFunction, RankContext
from bench.engines.deepspeed.compilation import remove_stale_locks
from bench.engines.deepspeed.offload import zero_offload
from bench.engines.muon import describe_muon, hidden_matrices
from bench.engines.offload import describe_offload
from bench.engines.optimizers import FUSED, build_optimizer
from bench.engines.precision import AUTOCAST, cast_inputs, weight_dtype
from bench.engines.scaling import LossScaling
from bench.engines.spec import EngineSpec, EngineUnsupported
from bench.engines.unsupported import reject_empty, reject_scripted, reject_sparse, reject_strided
from bench.engines.whole_loss import WholeLoss
from results.resolved import EngineDescription
from results.training_settings import QUANTIZED

MIB = 1 << 20
BUCKET_ELEMENTS = 500_000_000
"""DeepSpeed's default of both bucket sizes; it allocates them whole, 2 GB in fp32."""


class DeepSpeedDescription(EngineDescription, total=False):
    """Entries of this engine alone."""

    configuration: dict[str, Any]
    """As given to ``deepspeed.initialize``."""


class DeepSpeed:
    """``deepspeed.initialize`` with the configuration that ``configuration`` writes down."""

    def setup(self, module: nn.Module, units: list[nn.Module], spec: EngineSpec, context: RankContext) -> None:
        from bench.engines.deepspeed.library import deepspeed

        reject_module(module, spec.stage)
        if "weights" in QUANTIZED[spec.quantize]:
            reject_unquantizable(module, spec.world_size)
        self.spec = spec
        checkpoint_units(units, spec.checkpointing)
        self.whole_loss = bool(context.first_use) or isinstance(module, torch.jit.ScriptModule)
        self.library = deepspeed
        take_device(context.device.type)
        self.names = [name for name, _ in module.named_parameters()]
        largest_unit = max(map(parameter_count, units or [module]))
        self.configuration = configuration(spec, parameter_count(module), largest_unit)
        os.environ["LOCAL_RANK"] = str(context.device.index or 0)
        deepspeed.init_distributed(dist_init_required=False, verbose=False)
        own = spec.options["kernel"] == "deepspeed"
        if own or spec.options["offload_device"] == "nvme":
            remove_stale_locks(context.placement.hosts)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        fused = {"fused": True} if spec.optimizer in FUSED else {}
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=WholeLoss(module) if self.whole_loss else module,
            model_parameters=weights,
            optimizer=None if own else build_optimizer(spec, weights, hidden_matrices(module), **fused),
            config=self.configuration,
        )

    def forward_backward(self, batch: Batch, loss_fn: LossFunction, *, sync: bool) -> Tensor:
        batch = cast_inputs(batch, weight_dtype(self.spec.precision))
        loss: Tensor = self.engine(loss_fn, batch) if self.whole_loss else loss_fn(self.engine, batch)
        self.engine.backward(loss)
        if not sync:
            self.engine.step()  # counts the micro-batch
        return loss.detach()

    def optimizer_step(self) -> None:
        self.engine.step()

    def loss_scaling(self) -> LossScaling | None:
        """At stages 1 to 3 its optimizer wrapper has the scaler, and skips without telling it: the engine counts."""
        if self.spec.stage == 0:
            return LossScaling.of(self.engine.torch_autocast_z0_gradscaler)
        scaling = LossScaling.of(self.engine.optimizer.torch_autocast_gradscaler)
        return scaling and replace(scaling, skips=self.engine.skipped_steps)

    def state(self) -> dict[str, list[Tensor]]:
        """What its optimizer wrappers keep; their bucket buffers are seen only in the peak."""
        kept = self._kept()
        if self.spec.offload == "none":
            return kept
        on_device = kept | {"master": [], "optimizer": [], "grads": self._device_gradients()}
        return on_device | ({"params": []} if self.spec.offload == "params" else {})

    def host_state(self) -> dict[str, list[Tensor]]:
        """With the buffers through which gradients and updated parameters are copied."""
        if self.spec.offload == "none":
            return {}
        kept, wrapper = self._kept(), self.engine.optimizer
        on_device = self._device_gradients()
        gradients = [gradient for gradient in kept["grads"] if all(gradient is not other for other in on_device)]
        copied = [getattr(wrapper, "temp_grad_buffer_for_cpu_offload", None)]
        copied += getattr(wrapper, "accumulated_grads_in_cpu", {}).values()
        cast = getattr(wrapper, "param_buffer_of_bit16_for_cpu_offload_groups", [])
        return {
            "params": [*cast, *(kept["params"] if self.spec.offload == "params" else [])],
            "master": kept["master"],
            "grads": [*gradients, *(tensor for tensor in copied if tensor is not None)],
            "optimizer": kept["optimizer"],
        }

    def _device_gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self.engine.module.parameters() if weight.grad is not None]

    def _kept(self) -> dict[str, list[Tensor]]:
        weights = list(self.engine.module.parameters())
        wrapper = self.engine.optimizer
        inner = getattr(wrapper, "optimizer", wrapper)
        partitions = getattr(wrapper, "fp32_partitioned_groups_flat", None)  # stage 3 lends them to the optimizer
        updated = partitions or [weight for group in inner.param_groups for weight in group["params"]]
        reduced = [part for parts in getattr(wrapper, "averaged_gradients", {}).values() for part in parts or []]
        flat = getattr(wrapper, "grad_partitions_flat_buffer", None)
        return {
            "params": [getattr(weight, "ds_tensor", weight) for weight in weights],
            "master": [weight for weight in updated if all(weight is not other for other in weights)],
            "grads": [
                *(tensor.grad for tensor in (*weights, *updated) if tensor.grad is not None),
                *([flat] if flat is not None else reduced),
            ],
            "optimizer": [
                value for entry in inner.state.values() for value in entry.values() if torch.is_tensor(value)
            ],
            "buffers": list(self.engine.module.buffers()),
        }

    def full_state_dict(self) -> dict[str, Tensor]:
        weights = list(self.engine.module.parameters())
        with self.library.zero.GatheredParameters(weights, enabled=self.spec.stage == 3):
            return {name: weight.detach().clone() for name, weight in zip(self.names, weights, strict=True)}

    def describe(self) -> DeepSpeedDescription:
        by_default = self.spec.stage == 3 if self.spec.overlap is None else self.spec.overlap
        return {
            "library": f"deepspeed {self.library.__version__}",
            "overlap": by_default and self.spec.device == "cuda",  # by streams; elsewhere it waits for each collective
            "configuration": self.configuration,
            **describe_offload(self.spec),
            **describe_muon(self.spec, "on every rank"),
        }

    def teardown(self) -> None:
        """Nothing: the process leaves with ``os._exit``."""


def reject_module(module: nn.Module, stage: int) -> None:
    """Raises EngineUnsupported, by name, for parameters that DeepSpeed fails on or would train in another dtype."""
    reject_sparse("deepspeed", module)
    for name, weight in module.named_parameters():
        if not weight.dim():
            raise EngineUnsupported(f"engine=deepspeed: {name} is a scalar; parameters need a dimension")
        if weight.dtype != torch.float32:
            raise EngineUnsupported(f"engine=deepspeed: {name} is {weight.dtype}; it takes fp32 parameters")
    reject_strided("deepspeed", module, "which it cannot broadcast at its start")
    if stage == 3:
        reject_empty("deepspeed at stage=3", module, "which it does not gather")
        reject_scripted("deepspeed at stage=3", module)
        reject_compiled(module)


def reject_unquantizable(module: nn.Module, world_size: int) -> None:
    """Raises EngineUnsupported for a parameter that ZeRO++'s kernel cannot divide into groups, or would dequantize
    without the padding with which it quantized the last shard (0.19.8)."""
    multiple = 8 * world_size
    for name, weight in module.named_parameters():
        if weight.numel() % multiple:
            raise EngineUnsupported(
                f"engine=deepspeed with quantize=weights: {name} has {weight.numel()} elements, and its kernel needs a "
                f"multiple of {multiple}, which is 8 per rank; valid: quantize=none, engine=native"
            )


def reject_compiled(module: nn.Module) -> None:
    """Raises EngineUnsupported for a submodule under torch.compile, whose parameters stage 3 cannot intercept."""
    for name, part in module.named_modules():
        if isinstance(part, OptimizedModule):
            raise EngineUnsupported(
                f"engine=deepspeed at stage=3: {name or 'the module'} is compiled (torch.compile), so it cannot gather "
                "its parameters; valid: a module that is not compiled, stage=0, 1, 2"
            )


def take_device(device: str) -> None:
    """Has DeepSpeed compute on the CPU for ``device=cpu``, though it took GPUs that it saw when it was imported.

    Raises EngineUnsupported the other way round.
    """
    from deepspeed.accelerator import get_accelerator, set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    its_own = get_accelerator().device_name()
    if device == "cpu" != its_own:
        set_accelerator(CPU_Accelerator())
    elif device != its_own:
        raise EngineUnsupported(
            f"engine=deepspeed has no device={device} here: when it was imported it took device={its_own}, because "
            f"DS_ACCELERATOR says so or it saw no GPU. Valid: {its_own}"
        )


def parameter_count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def configuration(spec: EngineSpec, parameters: int, largest_unit: int) -> dict[str, Any]:
    """DeepSpeed's JSON configuration (https://www.deepspeed.ai/docs/config-json/) for a model of so many parameters."""
    written: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,  # only for what it prints: the loop owns the batches
        "gradient_accumulation_steps": spec.accumulate,
        "gradient_clipping": spec.clip_norm or 0.0,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "zero_optimization": zero(spec, parameters, largest_unit),
    }
    if spec.options["kernel"] == "deepspeed":
        defaults = build_optimizer(spec, [torch.zeros(1)]).defaults
        written["optimizer"] = {
            "type": "Adam",
            "params": {name: defaults[name] for name in ("betas", "eps", "weight_decay")}
            | {"lr": spec.lr, "adam_w_mode": spec.optimizer == "adamw"},
        }
    if spec.precision in AUTOCAST:
        dtype = str(AUTOCAST[spec.precision]).removeprefix("torch.")
        written["torch_autocast"] = {"enabled": True, "dtype": dtype, "lower_precision_safe_modules": []}
    if spec.precision in ("bf16", "bf16_master"):
        pure = spec.precision == "bf16"
        written["bf16"] = {"enabled": True, "bf16_master_weights_and_grads": pure, "bf16_optimizer_states": pure}
    return written


def zero(spec: EngineSpec, parameters: int, largest_unit: int) -> dict[str, Any]:
    """The ``zero_optimization`` part. Sizes count elements, of the dtype that gradients are reduced in.

    A default bucket larger than the model is cut to the model: the rest would never be filled. Stage 3's defaults
    are made for large models: they keep parameters below 100,000 elements whole, and release none before a billion
    are gathered, so a small model would be gathered once a step and kept.
    """
    elements = min(BUCKET_ELEMENTS, parameters)
    if spec.bucket_mb is not None:
        elements = int(spec.bucket_mb * MIB) // weight_dtype(spec.precision).itemsize
    elements = max(elements // 2 * 2, 2)  # it takes even numbers only
    written: dict[str, Any] = {
        "stage": spec.stage,
        "reduce_bucket_size": elements,
        "allgather_bucket_size": elements,
    }
    written |= zero_offload(spec)
    if spec.overlap is not None:
        written["overlap_comm"] = spec.overlap
    if spec.stage == 3:
        written |= {
            "stage3_param_persistence_threshold": 0,
            "stage3_model_persistence_threshold": 0,
            "stage3_prefetch_bucket_size": largest_unit,
            "stage3_max_live_parameters": 2 * largest_unit,
            "stage3_max_reuse_distance": 0,
        }
    if "weights" in QUANTIZED[spec.quantize]:
        written["zero_quantized_weights"] = True
    return written


def create() -> Engine:
    return DeepSpeed()

"""The input of a prediction: parameter shapes, bytes per element, optimizer, stage and world size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results import training_settings
from results.model import Parameter, element_count
from results.precision import ITEM_BYTES, PRECISIONS
from results.record import Record, shard_size, world_size


@dataclass(frozen=True)
class Widths:
    """Bytes per element of each kind of state (shared FORMULAS, "Persistent bytes per parameter")."""

    param: int
    master: int
    grad: int
    moment: int


def widths_of(precision: str, parameters: Sequence[Parameter] = ()) -> Widths | None:
    """Bytes per element under a precision; None for one that does not exist, and for parameters of several dtypes.

    fp32 leaves parameters as they were built, which may be in fp64; bf16 casts them all.
    """
    entry = PRECISIONS.get(precision)
    if entry is None:
        return None
    built = {parameter.dtype for parameter in parameters}
    if entry.weights == "float32" and built - {"float32"}:
        width = ITEM_BYTES.get(built.pop()) if len(built) == 1 else None
        return Widths(width, 0, width, width) if width else None
    weights = ITEM_BYTES[entry.weights]
    return Widths(weights, 4 if entry.master else 0, weights, ITEM_BYTES[entry.optimizer_state])


MIN_QUANTIZED_ELEMENTS, BLOCK = 4096, 256
"""Elements from which on torchao quantizes an array, and those of a block with one scale."""
SCALE_BYTES = 4
CODES_BYTES = 256 * 4
"""The table of the values that a byte stands for; torchao keeps one with each array."""
PART = 2**16
"""Elements of a flat shard that ``native`` updates together where arrays are quantized."""


@dataclass(frozen=True)
class Optimizer:
    """Bytes of optimizer state for a parameter tensor."""

    moments: int
    """Arrays of the parameter's size."""
    counter_bytes: int
    """The step counter that torch keeps per parameter tensor, a 4-byte scalar."""
    has_8_bits: bool = False
    """Whether arrays are quantized by blocks where they are large enough (torchao)."""

    def bytes_of(self, count: int, width: int) -> int:
        """Of a parameter tensor with ``count`` elements, whose arrays have ``width`` bytes per element."""
        return self.moments * self._array_bytes(count, width) + self.counter_bytes

    def bytes_of_shard(self, count: int, width: int) -> int:
        """Of a flat shard, which is cut into parts of whole blocks and the rest where arrays are quantized."""
        if not self.has_8_bits:
            return self.bytes_of(count, width)
        whole = count // BLOCK * BLOCK
        parts = [min(PART, whole - start) for start in range(0, whole, PART)]
        return sum(self.bytes_of(part, width) for part in (*parts, count - whole) if part)

    def _array_bytes(self, count: int, width: int) -> int:
        if not self.has_8_bits or count < MIN_QUANTIZED_ELEMENTS or count % BLOCK:
            return count * width
        return count + count // BLOCK * SCALE_BYTES + CODES_BYTES


OPTIMIZERS = {
    "sgd": Optimizer(1, 0),
    "adam": Optimizer(2, 4),
    "adamw": Optimizer(2, 4),
    "rmsprop": Optimizer(1, 4),
    "muon": Optimizer(2, 4),
    "adam8bit": Optimizer(2, 4, has_8_bits=True),
}
"""Of muon, its part that is AdamW."""
MUON = Optimizer(1, 0)
"""Its part for matrices of hidden layers: momentum alone."""


@dataclass(frozen=True)
class Setting:
    """One cell as a prediction sees it."""

    engine: str
    stage: int
    world_size: int
    precision: str
    widths: Widths
    optimizer: Optimizer
    """Of all parameters, but for matrices of hidden layers where ``matrix_optimizer`` is another one."""
    parameters: list[Parameter]
    buffer_bytes: int
    """As the precision has them: bf16 casts floating-point buffers too."""
    accumulate: int = 1
    shard_size: int | None = None
    """Ranks that share one copy of what is sharded; None: all."""
    secondary_shard_size: int | None = None
    """Ranks that keep a second copy of the parameters; None: there is none."""
    compression: str = "none"
    quantize: str = "none"
    local_steps: int = 1
    offload: str = "none"
    device: str = "cuda"
    rank: int | None = None
    """The only rank that there is, of a simulated cell; None: all are, and the one that holds most is predicted."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own settings (engine.*)."""
    described: Mapping[str, Any] = field(default_factory=dict)
    """The settings that took effect, as the engine describes them."""
    matrix_optimizer: Optimizer | None = None

    @property
    def trainable(self) -> list[Parameter]:
        return [parameter for parameter in self.parameters if parameter.requires_grad]

    def by_optimizer(self, parameters: Sequence[Parameter]) -> list[tuple[Optimizer, list[Parameter]]]:
        """``parameters`` by what their optimizer keeps, matrices first, each in the given order; none is empty."""
        special = self.matrix_optimizer
        matrices = [one for one in parameters if special and one.hidden_matrix and one.requires_grad]
        rest = [one for one in parameters if one not in matrices]
        pairs = [(special or self.optimizer, matrices), (self.optimizer, rest)]
        return [(optimizer, chosen) for optimizer, chosen in pairs if chosen]

    @property
    def quantized(self) -> tuple[str, ...]:
        """What is communicated as 8-bit numbers: weights, gradients."""
        return training_settings.QUANTIZED[self.quantize]

    @property
    def shards(self) -> int:
        """Into how many parts a copy of the sharded state is cut."""
        return self.shard_size or self.world_size

    @property
    def fraction(self) -> float:
        """f = (N-1)/N."""
        return (self.world_size - 1) / self.world_size


def optimizer_of(config: Mapping[str, Any]) -> Optimizer | None:
    """What the optimizer of a configuration keeps; momentum decides about an array of sgd and of rmsprop."""
    name, momentum = str(config.get("optimizer")), config.get("momentum")
    if name == "sgd" and momentum == 0:
        return Optimizer(0, 0)
    if name == "rmsprop" and momentum:
        return Optimizer(2, 4)
    return OPTIMIZERS.get(name)


def elements(parameters: list[Parameter]) -> int:
    return sum(element_count(parameter.shape) for parameter in parameters)


def setting(record: Record) -> Setting | None:
    """The setting of a record, or None where it never got a model or uses what no formula covers."""
    config = record.config
    engine = config.get("engine") or {}
    described = record.resolved.get("engine")
    parameters = record.model.parameters if record.model else []
    widths = widths_of(str(config.get("precision")), parameters)
    optimizer = optimizer_of(config)
    stage, size = config.get("stage"), world_size(record)
    if record.model is None or widths is None or optimizer is None or not isinstance(stage, int) or size < 1:
        return None
    return Setting(
        engine=str(engine.get("name")),
        stage=stage,
        world_size=size,
        precision=str(config["precision"]),
        widths=widths,
        optimizer=optimizer,
        parameters=record.model.parameters,
        buffer_bytes=record.model.buffer_bytes,
        shard_size=shard_size(record),
        secondary_shard_size=config.get("secondary_shard_size"),
        compression=str(config.get("compression") or "none"),
        quantize=str(config.get("quantize") or "none"),
        local_steps=int(config.get("local_steps") or 1),
        offload=str(config.get("offload") or "none"),
        device=str(record.resolved.get("device") or "cuda"),
        rank=0 if record.resolved.get("simulated") else None,
        accumulate=int(record.resolved.get("accumulate") or config.get("accumulate") or 1),
        options=engine,
        matrix_optimizer=MUON if config.get("optimizer") == "muon" else None,
        described=described if isinstance(described, Mapping) else {},
    )

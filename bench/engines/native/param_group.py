"""Parameter groups: the buckets that are unsharded and resharded together, and how parameters are assigned to them."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from bench.engines.native.bucket import AllGatherState, Bucket
from bench.engines.native.collectives import Collectives, Gathers
from bench.engines.native.layout import lay_out
from bench.engines.native.policy import ShardingPolicy
from bench.engines.param_owners import holders


class ParamGroup:
    """Buckets that are unsharded and resharded together, for the modules that use them."""

    def __init__(self, name: str, modules: list[nn.Module], buckets: list[Bucket]) -> None:
        self.name = name
        self.modules = modules
        self.buckets = buckets
        self.frozen = [bucket for bucket in buckets if not bucket.trainable]
        self._all_gathers: list[AllGatherState] = []

    def start_unshard(self, *, exact: bool = False) -> None:
        """Starts the all-gathers of resharded buckets; does nothing while some are in flight."""
        if not self._all_gathers:
            resharded = [bucket for bucket in self.buckets if not bucket.is_unsharded]
            self._all_gathers = [bucket.start_unshard(exact=exact) for bucket in resharded]

    def wait_for_unshard(self) -> None:
        for all_gather in self._all_gathers:
            all_gather.wait()
        self._all_gathers = []

    def unshard(self, *, exact: bool = False) -> None:
        """Makes the parameters usable. ``exact``: as they are trained, whatever is quantized or copied."""
        self.start_unshard(exact=exact)
        self.wait_for_unshard()

    def reshard(self) -> None:
        self.wait_for_unshard()
        for bucket in self.buckets:
            bucket.reshard()

    def set_in_forward(self, in_forward: bool) -> None:
        """Sets whether one of the modules is in its forward."""
        for bucket in self.buckets:
            bucket.in_forward = in_forward

    def save_writes(self) -> None:
        """Keeps what forward wrote to the parameters."""
        for bucket in self.buckets:
            bucket.save_writes()


class ParamGroups:
    """Assigns a module's parameters to groups and buckets."""

    def __init__(
        self,
        module: nn.Module,
        collectives: Collectives,
        policy: ShardingPolicy,
        *,
        cap_bytes: float | None,
        master_weights: bool,
        matrices: Collection[int] = (),
        quantizes: bool = False,
        neighbours: Gathers | None = None,
    ) -> None:
        """``cap_bytes`` bounds a bucket; None: a bucket per group. ``matrices``: ids of parameters whose update differs
        from that of the others, so they share no bucket with them. ``quantizes`` and ``neighbours``: how shards are
        gathered (``gather.py``).
        """
        self.module = module
        self.collectives = collectives
        self.policy = policy
        self.cap_bytes = cap_bytes
        self.master_weights = master_weights
        self.matrices = matrices
        self.quantizes = quantizes
        self.neighbours = neighbours

    def assign(self, units: list[nn.Module]) -> list[ParamGroup]:
        """Sharded parameters: a group per unit (or run of units), the root's last. Else one group of all trainable
        parameters, last ones first: the order in which backward computes their gradients."""
        if not self.policy.shard_parameters:
            trainable = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
            return [ParamGroup("the module", [self.module], self._buckets(trainable[::-1]))]
        names = {part: name or "the root" for name, part in self.module.named_modules()}
        return [
            ParamGroup(" + ".join(names[part] for part in modules), modules, self._buckets(parameters))
            for modules, parameters in group_units(self.module, units, self.cap_bytes)
        ]

    def _buckets(self, parameters: list[nn.Parameter]) -> list[Bucket]:
        """Buckets of ``parameters`` in their order, separate by dtype, by whether they are trained, and by update.

        Where parameters are not sharded, a bucket comes after those that backward completes earlier.
        """
        kinds: dict[tuple[torch.dtype, bool, bool], list[nn.Parameter]] = {}
        for parameter in parameters:
            is_matrix = parameter.requires_grad and id(parameter) in self.matrices
            kind = (parameter.dtype, parameter.requires_grad, is_matrix)
            kinds.setdefault(kind, []).append(parameter)
        buckets = [
            Bucket(
                layout,
                same,
                self.collectives,
                self.policy,
                master_weights=self.master_weights,
                has_matrices=has_matrices,
                quantizes=self.quantizes,
                neighbours=self.neighbours,
            )
            for (_, _, has_matrices), same in kinds.items()
            for layout in lay_out(
                [parameter.numel() for parameter in same],
                range(len(same)),
                self.cap_bytes,
                self.collectives.world_size,
                same[0].element_size(),
                short_end=not self.policy.shard_parameters,
            )
        ]
        if self.policy.shard_parameters:
            return buckets
        place = {id(parameter): number for number, parameter in enumerate(parameters)}
        return sorted(buckets, key=lambda bucket: place[id(bucket.parameters[-1])])


def backward_order(module: nn.Module, groups: list[ParamGroup], policy: ShardingPolicy) -> list[Bucket]:
    """Buckets in the order in which backward completes them: units from last to first, then the root."""
    if not policy.shard_parameters:
        return [bucket for group in groups for bucket in group.buckets]
    units = [group for group in groups if group.modules != [module]]
    root = [group for group in groups if group.modules == [module]]
    return [bucket for group in (*units[::-1], *root) for bucket in group.buckets[::-1]]


def group_units(
    module: nn.Module, units: list[nn.Module], cap_bytes: float | None
) -> list[tuple[list[nn.Module], list[nn.Parameter]]]:
    """Modules and parameters of each group, in the order of forward; the root's group is last.

    Consecutive units are merged while they stay within ``cap_bytes``; None keeps each separate. A parameter that is
    also outside its unit, or in another one (tied weights, a module in two units), belongs to the root, which stays
    unsharded throughout.
    """
    owners = holders(module, units)
    groups: list[tuple[list[nn.Module], list[nn.Parameter]]] = []
    assigned: set[int] = set()
    size = 0.0
    for place, unit in enumerate(units):
        own = [parameter for parameter in unit.parameters() if owners[id(parameter)] == {place}]
        assigned.update(map(id, own))
        bytes_ = sum(parameter.nbytes for parameter in own)
        if groups and cap_bytes is not None and size + bytes_ <= cap_bytes:
            groups[-1][0].append(unit)
            groups[-1][1].extend(own)
            size += bytes_
        elif own:
            groups.append(([unit], own))
            size = bytes_
    root = [parameter for parameter in module.parameters() if id(parameter) not in assigned]
    return [*groups, ([module], root)] if root else groups

"""Plain data from every rank to every rank, as JSON: torch's own object collectives would unpickle what arrives."""

from __future__ import annotations

import json
from typing import Any

import torch
import torch.distributed as dist


def all_gather_json(value: Any, device: torch.device) -> list[Any]:
    """The ``value`` of each rank, in JSON types and in the order of ranks. Collective over the default group.

    ``device`` is the rank's; collectives over NCCL need its memory.
    """
    place = device if dist.get_backend() == "nccl" else torch.device("cpu")
    text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(place)
    sizes = [torch.zeros(1, dtype=torch.int64, device=place) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, torch.tensor([text.numel()], device=place))
    padded = torch.zeros(max(int(size) for size in sizes), dtype=torch.uint8, device=place)
    padded[: text.numel()] = text
    texts = [torch.zeros_like(padded) for _ in sizes]
    dist.all_gather(texts, padded)
    return [json.loads(bytes(entry[: int(size)].cpu().numpy())) for entry, size in zip(texts, sizes, strict=True)]

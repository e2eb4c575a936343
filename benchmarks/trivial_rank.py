"""One rank that wraps a small model in DDP and trains one step: what each way of launching has to run.

As a command, it reads its rank as torchrun or srun sets it, and TRIVIAL_ADDRESS, TRIVIAL_PORT of rank 0.
"""

from __future__ import annotations

import os

LOOPBACK = "127.0.0.1"


def train(rank: int, world_size: int, port: int, address: str = LOOPBACK) -> None:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"tcp://{address}:{port}", rank=rank, world_size=world_size)
    model = DistributedDataParallel(nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(8, 64)).square().mean().backward()
    optimizer.step()
    dist.barrier()
    os._exit(0)


def variable(*names: str) -> str:
    """The first of these that is set. Raises KeyError if none is."""
    return next(os.environ[name] for name in names if name in os.environ or name == names[-1])


if __name__ == "__main__":
    train(
        int(variable("RANK", "SLURM_PROCID")),
        int(variable("WORLD_SIZE", "SLURM_STEP_NUM_TASKS")),
        int(os.environ["TRIVIAL_PORT"]),
        os.environ.get("TRIVIAL_ADDRESS", LOOPBACK),
    )

"""One rank that wraps a small model in DDP and trains one step: what each way of launching has to run."""

from __future__ import annotations

import os


def train(rank: int, world_size: int, port: int) -> None:
    import torch
    import torch.distributed as dist
    from torch import nn
    from torch.nn.parallel import DistributedDataParallel

    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size)
    model = DistributedDataParallel(nn.Linear(64, 64))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(8, 64)).square().mean().backward()
    optimizer.step()
    dist.barrier()
    os._exit(0)


if __name__ == "__main__":
    train(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["TRIVIAL_PORT"]))

"""Real ranks of the native engine that train, save and load: a server that forks them, and what each of them does.

``python -m tests.checkpoint_ranks`` reads one launch a line as JSON, forks its ranks and answers with one line: for
each rank the outcomes of its actions, or null where it died. A launch is {"ranks": N, "spec": {...}, "model": kind,
"seed": of the weights, "actions": [[name, argument...], ...]}.
"""

from __future__ import annotations

import datetime
import functools
import importlib
import json
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
GLOBAL_BATCH = 12
WIDTH = 16


class Ranks:
    """The server, seen from a test."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.checkpoint_ranks"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        )

    def launch(
        self, actions: list[list[Any]], *, ranks: int = 2, model: str = "plain", seed: int = 7, **spec: Any
    ) -> list[Any]:
        assert self._server.stdin is not None and self._server.stdout is not None
        request = {"ranks": ranks, "spec": spec, "model": model, "seed": seed, "actions": actions}
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: list[Any] = json.loads(self._server.stdout.readline())
        return answer

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=30)


def serve() -> None:
    import torch

    from bench.engines.native import PRELOAD

    for module in (*PRELOAD, "bench.engines.native.adapter", "bench.worker"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(fork_ranks(json.loads(line))), flush=True)


def fork_ranks(request: dict[str, Any]) -> list[Any]:
    with tempfile.TemporaryDirectory() as scratch:
        children = []
        for rank in range(request["ranks"]):
            child = os.fork()
            if child == 0:
                try:
                    outcome = Path(scratch, f"unfinished-{rank}")
                    outcome.write_text(json.dumps(run_rank(request, rank, Path(scratch, "store"))))
                    outcome.rename(Path(scratch, f"rank-{rank}"))
                except BaseException:
                    traceback.print_exc()
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        outcomes = [Path(scratch, f"rank-{rank}") for rank in range(request["ranks"])]
        return [json.loads(path.read_text()) if path.exists() else None for path in outcomes]


def run_rank(request: dict[str, Any], rank: int, store: Path) -> list[Any]:
    import torch.distributed as dist

    ranks = request["ranks"]
    meeting = dist.FileStore(str(store), ranks)
    dist.init_process_group(
        "gloo",
        store=meeting,
        rank=rank,
        world_size=ranks,
        timeout=datetime.timedelta(seconds=30),
    )
    trainer = Trainer(request, rank, meeting)
    outcomes = [getattr(trainer, name)(*arguments) for name, *arguments in request["actions"]]
    dist.barrier()
    return outcomes


def build(kind: str, seed: int) -> Any:
    """``plain`` trains alike at any world size; ``rich`` has what else a checkpoint must carry."""
    import torch
    from torch import nn

    class Rich(nn.Module):
        """Tied weights, frozen ones (not contiguous), a scalar, local buffers, and dropout."""

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(WIDTH, WIDTH)
            self.norm = nn.BatchNorm1d(WIDTH)
            self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
            self.frozen.weight.data = self.frozen.weight.data.t()
            self.scale = nn.Parameter(torch.tensor(1.5))
            self.tied = nn.Linear(WIDTH, WIDTH, bias=False)
            self.tied.weight = self.first.weight
            self.register_buffer("constant", torch.ones(2, 2), persistent=False)

        def forward(self, inputs: Any) -> Any:
            hidden = nn.functional.dropout(self.norm(self.first(inputs)), 0.2, self.training)
            return self.tied(torch.tanh(self.frozen(hidden)) * self.scale)

    torch.manual_seed(seed)
    if kind == "rich":
        return Rich()
    width = {"wide": 24, "large": 2000}.get(kind, 20)
    layers = nn.Sequential(nn.Linear(WIDTH, width), nn.Tanh(), nn.Linear(width, WIDTH))
    if kind == "deep":
        layers.append(nn.Linear(WIDTH, WIDTH))
    if kind == "strided":
        for layer in layers:
            if isinstance(layer, nn.Linear):
                layer.weight = nn.Parameter(layer.weight.detach().t().contiguous().t())
    if kind == "frozen":
        layers[0].requires_grad_(False)
    return layers


class Trainer:
    """One rank. Its public methods are the actions; what they return goes into JSON."""

    def __init__(self, request: dict[str, Any], rank: int, store: Any) -> None:
        import torch

        from bench.engines.base import RankContext
        from bench.engines.native.adapter import NativeEngine
        from bench.engines.spec import EngineSpec

        settings = {
            "stage": 0,
            "world_size": request["ranks"],
            "device": "cpu",
            "backend": "gloo",
            "lr": 0.01,
        }
        self.rank, self.ranks = rank, request["ranks"]
        self.engine = NativeEngine()
        module = build(request["model"], request["seed"])
        torch.manual_seed(rank)
        self.engine.setup(
            module,
            list(module.children()),
            EngineSpec(**(settings | request["spec"])),
            RankContext(rank, self.ranks, torch.device("cpu"), store),
        )

    def train(self, start: int, stop: int) -> None:
        for step in range(start, stop):
            self.backward(step)
            self.engine.optimizer_step()

    def backward(self, step: int) -> None:
        import torch

        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(GLOBAL_BATCH, WIDTH, generator=generator).chunk(self.ranks)[self.rank]
        self.engine.forward_backward(
            (inputs, inputs.roll(1, dims=1)), lambda module, b: (module(b[0]) - b[1]).square().mean(), sync=True
        )

    def draw(self) -> None:
        """Moves the random generator on: a process that loads is not where one that goes on would be."""
        import torch

        torch.rand(1)

    def set_loss_scale(self, value: float) -> None:
        self.engine.loss_scale.value = value

    def loss_scale(self) -> list[float]:
        return [self.engine.loss_scale.value, self.engine.loss_scale.good_steps]

    def state(self) -> str:
        """Digest of all that this rank keeps from one step to the next."""
        from bench.worker.model import digest

        tensors_by_kind = self.engine.state()
        tensors = [tensor for kind in ("params", "master", "optimizer", "buffers") for tensor in tensors_by_kind[kind]]
        return f"{digest(tensors)} {self.loss_scale()}"

    def weights(self) -> str:
        from bench.worker.model import digest

        return digest([weight for _, weight in sorted(self.engine.full_state_dict().items())])

    def values(self) -> list[float]:
        return [
            number
            for _, weight in sorted(self.engine.full_state_dict().items())
            for number in weight.double().flatten().tolist()
        ]

    def buffers(self) -> dict[str, Any]:
        return {name: buffer.tolist() for name, buffer in self.engine.module.named_buffers()}

    def save(self, folder: str, trouble: str | None = None) -> str | None:
        """Saves, in ``trouble`` or none; the rejection, if it is rejected."""
        from bench.engines.native import checkpoint
        from bench.engines.native.checkpoint import saving

        if trouble == "crash":
            checkpoint.complete = lambda *_: os._exit(1)
        if trouble == "disk full" and self.rank == self.ranks - 1:
            saving.sync = self._disk_full
        if trouble == "no exchange":
            saving.exchange = lambda *_: False
        return self._rejection(functools.partial(checkpoint.save, self.engine), folder)

    def load(self, folder: str) -> str | None:
        from bench.engines.native import checkpoint

        return self._rejection(functools.partial(checkpoint.load, self.engine), folder)

    @staticmethod
    def _disk_full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    @staticmethod
    def _rejection(action: Any, folder: str) -> str | None:
        from bench.engines.native.checkpoint import CheckpointError

        try:
            action(Path(folder))
        except CheckpointError as error:
            return str(error)
        return None


if __name__ == "__main__":
    serve()

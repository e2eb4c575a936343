"""Hydra's way into the sweep: a launcher that plans all jobs before it runs any."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class BenchLauncher(Launcher):
    """Composes the configuration of every job and hands them to ``bench.sweep`` together."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config = config
        self.hydra_context = hydra_context

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from bench.cli import compose
        from bench.cli.folder import unless_rejected
        from bench.reproduce.request import CannotReproduce
        from bench.sweep import run

        loader = self.hydra_context.config_loader
        composed = [loader.load_sweep_config(self.config, list(overrides)) for overrides in job_overrides]
        HydraConfig.instance().set_config(self.config)
        folder = Path(self.config.hydra.sweep.dir)
        with unless_rejected(folder, multirun=True):
            configs = [compose.from_hydra(config) for config in composed]
            if any(config.reproduce is not None for config in configs):
                raise CannotReproduce("reproduce= runs the one cell of a record; leave out -m and hydra.mode")
            code = run.run(configs, folder)
        if code:
            raise SystemExit(code)
        return [
            JobReturn(overrides=overrides, cfg=config, status=JobStatus.COMPLETED, _return_value=None)
            for overrides, config in zip(job_overrides, composed, strict=True)
        ]


ConfigStore.instance().store(
    group="hydra/launcher",
    name="bench",
    node={"_target_": f"{BenchLauncher.__module__}.{BenchLauncher.__qualname__}"},
    provider="bench",
)

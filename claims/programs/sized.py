"""A workload whose model and data set have sizes of their own."""

from __future__ import annotations

import dataclasses

from workloads import data
from workloads.mlp import MLP


class Sized(MLP):
    """Four linear layers of ``width`` on a data set of ``samples`` distinct vectors."""

    def __init__(self, *, seed: int, width: int, samples: int) -> None:
        super().__init__(seed=seed, data_dir=None, width=width)
        self._source = data.vectors(seed, width=width, samples=samples)
        self.info = dataclasses.replace(self.info, data=self._source.info)

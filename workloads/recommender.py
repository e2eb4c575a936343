"""A DLRM style recommender, whose parameters are nearly all in embedding tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workloads import data
from workloads.base import check_count
from workloads.supervised import Supervised

DENSE = 13
"""Dense features of a sample, as in the Criteo data."""


class Recommender(Supervised):
    """Whether a sample is clicked, from dense features and one row of each embedding table; binary cross-entropy.

    ``tables`` of ``rows`` by ``width``; few rows are in most samples. Gradients of the tables are dense, so that
    rows which no sample of a batch names are reduced like all others.
    """

    def __init__(self, *, seed: int, data_dir: str | None, tables: int = 8, rows: int = 1000, width: int = 16) -> None:
        check_count("recommender", "tables", tables)
        check_count("recommender", "rows", rows)
        check_count("recommender", "width", width)
        data.reject_data_dir("recommender", data_dir)
        self._tables = tables
        self._rows = rows
        self._width = width
        source = data.clicks(seed, dense=DENSE, tables=tables, rows=rows)
        super().__init__("recommender", seed, source)

    def network(self) -> nn.Module:
        return DLRM(self._tables, self._rows, self._width)

    def units(self, module: nn.Module) -> list[nn.Module]:
        """The bottom layers, each table, and the top layers."""
        tables = module.get_submodule("tables").children()
        return [module.get_submodule("bottom"), *tables, module.get_submodule("top")]

    def criterion(self, output: Tensor, targets: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(output, targets.float())


class DLRM(nn.Module):
    """Maps dense features (n, DENSE) and a row of each table (n, tables) to logits (n).

    The bottom layers bring the dense features to a table's width; the top layers see them and the dot product of
    each pair among them and the rows.
    """

    def __init__(self, tables: int, rows: int, width: int) -> None:
        super().__init__()
        hidden = 8 * width
        pairs = tables * (tables + 1) // 2
        self.bottom = nn.Sequential(nn.Linear(DENSE, hidden), nn.ReLU(), nn.Linear(hidden, width), nn.ReLU())
        self.tables = nn.ModuleList(nn.Embedding(rows, width) for _ in range(tables))
        self.top = nn.Sequential(nn.Linear(width + pairs, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        for table in self.tables.parameters():
            nn.init.uniform_(table, -(rows**-0.5), rows**-0.5)  # DLRM's

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        dense = self.bottom(features)
        rows = [table(indices[:, number]) for number, table in enumerate(self.tables)]
        vectors = torch.stack([dense, *rows], dim=1)
        first, second = torch.tril_indices(vectors.shape[1], vectors.shape[1], offset=-1, device=vectors.device)
        products = (vectors @ vectors.transpose(1, 2))[:, first, second]
        logits: Tensor = self.top(torch.cat((dense, products), dim=1)).squeeze(1)
        return logits

"""The plan of a sweep on the terminal."""

from __future__ import annotations

from bench.measure.machine.torch_build import Machine
from bench.plan.cell import Cell
from terminal.tables import console


def placed_on(cell: Cell) -> str:
    """Such as ``n1 (4 ranks), n2 (4 ranks)``."""
    return ", ".join(
        f"{host.name} ({ranks} rank{'' if ranks == 1 else 's'})"
        for host, ranks in zip(cell.hosts, cell.ranks_by_host, strict=True)
    )


def show_plan(cells: list[Cell], machine: Machine, where: str) -> None:
    """Prints the plan on stderr: cells that will run, others with their reason, and ``where`` records go."""
    out = console(stderr=True, soft_wrap=True)
    run_here = [cell for cell in cells if not cell.status]
    devices = ", ".join(sorted({f"{cell.device} over {cell.backend}" for cell in run_here})) or "nothing to run"
    out.print(
        f"{len(cells)} configuration{'' if len(cells) == 1 else 's'}, {devices}; {where}",
        markup=False,
    )
    for cell in cells:
        threads = f", {cell.threads} thread(s) a rank" if cell.device == "cpu" else ""
        threads += f", on {placed_on(cell)}" if cell.hosts else ""
        work = f"global batch {cell.global_batch}" if cell.trains else "collectives by size"
        note = f"{cell.status}: {cell.reason}" if cell.status else f"{work}{threads}"
        if cell.searches and not cell.status:
            note = f"search={cell.config.search} from {cell.rank_batch} samples a rank{threads}"
        note += ", simulated: rank 0 runs alone" if cell.simulated and not cell.status else ""
        out.print(f"  {cell.id}  {note}", markup=False)
    crowded = sorted({cell.config.gpus for cell in run_here if cell.oversubscribed(machine)})
    if crowded:
        what = f"{cells[0].cores:g} cores" if run_here[0].device == "cpu" else "the GPUs"
        out.print(
            f"oversubscribed: world sizes {', '.join(map(str, crowded))} share {what}; "
            "their times say nothing about scaling",
            markup=False,
        )

"""``project``: step time, throughput and memory at world sizes that were not measured."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from analysis.commands.arguments import Commands, add_command, add_places, read, size, warn

if TYPE_CHECKING:
    from analysis.projection.project import Links

EXAMPLES = """\
examples:
  python -m analysis project results/runs/today --gpus 16,32,64
      a sweep with network=lab, where each rank has a link of its own
  python -m analysis project results/runs/today --gpus 64,512 --gpus-per-host 8 --link 400gbit --latency 5us
      a sweep on one host; the network between hosts is described

exit code: 0 if something was projected, 1 if nothing could be, 2 if nothing could be read
"""

Kind = argparse.ArgumentTypeError


def add(commands: Commands) -> None:
    project = add_command(
        commands,
        "project",
        short="predict step time, throughput and memory for more GPUs than were measured",
        long="Fits latency, bandwidth and compute time to a sweep with three world sizes or more, and projects each "
        "configuration with a 90 % band. Before that, it predicts the largest measured world sizes from the smaller "
        "ones and prints the error.",
        examples=EXAMPLES,
    )
    add_places(project)
    project.add_argument("--gpus", type=sizes, required=True, metavar="N,N", help="world sizes to project to")
    project.add_argument("--link", type=rate, metavar="RATE", help="rate of a link between hosts, such as 400gbit")
    project.add_argument("--latency", type=latency, metavar="TIME", help="of a message between hosts, such as 5us")
    project.add_argument("--gpus-per-host", type=positive, metavar="N", help="ranks that share a host's links")
    project.add_argument(
        "--links-per-host", type=positive, default=1, metavar="N", help="links that a host has (default: 1)"
    )
    project.add_argument("--inside", type=bytes_rate, metavar="RATE", help="bandwidth inside a host, such as 900GB/s")
    project.add_argument("--gpu-memory", type=size, metavar="SIZE", help="memory of one GPU, such as 80GiB")
    project.set_defaults(run=run)


def sizes(text: str) -> list[int]:
    return [positive(part) for part in text.split(",")]


def positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 1_000_000:
        raise Kind(f"{text!r} is not valid; valid: whole numbers from 1 to 1000000, such as 64,512")
    return value


def rate(text: str) -> float:
    from results.quantities import bits_per_s

    if text.endswith("/s"):
        return 8 * bytes_rate(text)
    try:
        return bits_per_s(text, maximum=1e14)
    except ValueError as error:
        raise Kind(f"{text!r} is not a rate; valid: such as 400gbit or 50GB/s") from error


def latency(text: str) -> float:
    from results.quantities import delay_s

    try:
        return delay_s(text, minimum=1e-8)
    except ValueError as error:
        raise Kind(f"{text!r} is not a time; valid: such as 5us") from error


def bytes_rate(text: str) -> float:
    if text.endswith("bit"):
        return rate(text) / 8
    try:
        if not text.endswith("/s"):
            raise argparse.ArgumentTypeError
        return float(size(text.removesuffix("/s")))
    except argparse.ArgumentTypeError as error:
        raise Kind(f"{text!r} is not a rate; valid: such as 900GB/s or 400gbit") from error


def run(arguments: argparse.Namespace) -> int:
    from analysis.projection.project import project
    from analysis.projection.text import show
    from terminal.tables import console

    links = links_of(arguments)
    if isinstance(links, str):
        print(f"error: {links}", file=sys.stderr)
        return 2
    loaded = read(arguments)
    warn(loaded.warnings)
    projections, rejected = project(loaded.records, arguments.gpus, links, arguments.gpu_memory)
    out = console()
    for projection in projections:
        show(projection, out)
    for line in rejected:
        out.print(f"not projected: {line}", markup=False, soft_wrap=True)
    return 0 if any(projection.rows for projection in projections) else 1


def links_of(arguments: argparse.Namespace) -> Links | str:
    """The network that the options describe; a line that says what is missing, where they are incomplete."""
    from analysis.projection.fabric import LinkTime
    from analysis.projection.project import Links

    if (arguments.link is None) != (arguments.latency is None):
        return "--link and --latency describe the network between hosts together; give both"
    if arguments.link is not None and arguments.gpus_per_host is None:
        return "--link is shared by the ranks of a host; give --gpus-per-host too"
    if arguments.inside is not None and arguments.gpus_per_host is None:
        return "--inside is the bandwidth between the ranks of a host; give --gpus-per-host too"
    if arguments.link is None and arguments.links_per_host > 1:
        return "--links-per-host counts links like --link; give --link, --latency and --gpus-per-host too"
    between = None if arguments.link is None else LinkTime(arguments.latency, 8 / arguments.link)
    inside = None if arguments.inside is None else 1 / arguments.inside
    return Links(between, inside, arguments.gpus_per_host, arguments.links_per_host)

"""``advise``: the settings to use under limits."""

from __future__ import annotations

import argparse

from analysis.commands.arguments import Commands, add_command, add_places, read, size, warn

EXAMPLES = """\
examples:
  python -m analysis advise results/runs/today
      the fastest settings of each task, lowest peak memory first, with the command to paste
  python -m analysis advise results/runs/today --memory 16GiB --min-efficiency 0.8 --gpus 8

exit code: 0 if there is a setting that keeps the limits, 1 if there is none, 2 if nothing could be read
"""


def add(commands: Commands) -> None:
    advise = add_command(
        commands,
        "advise",
        short="say which settings to use under limits of memory and efficiency",
        long="Prints, for each task, the fastest settings that keep the limits (and those whose intervals "
        "overlap it, lowest peak memory first), slower ones that need less memory, and what was left out and why.",
        examples=EXAMPLES,
    )
    add_places(advise)
    advise.add_argument("--memory", type=size, metavar="SIZE", help="most peak memory of a rank, such as 16GiB")
    advise.add_argument("--min-efficiency", type=share, metavar="SHARE", help="least scaling efficiency, such as 0.8")
    advise.add_argument("--gpus", type=int, metavar="N", help="most ranks")
    advise.set_defaults(run=run)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid; valid: from 0 to 1, such as 0.8")
    return value


def run(arguments: argparse.Namespace) -> int:
    from analysis.advice.recommend import AdviceLimits, advise, lines
    from analysis.table.frame import frame

    source = read(arguments)
    warn(source.warnings)
    limits = AdviceLimits(memory_bytes=arguments.memory, efficiency=arguments.min_efficiency, gpus=arguments.gpus)
    given = advise(source.records, frame(source.records), limits)
    print("\n\n".join("\n".join(lines(advice)) for advice in given))
    return 0 if any(advice.tied for advice in given) else 1

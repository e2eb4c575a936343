"""The text of --help: every setting with its default."""

from __future__ import annotations

import textwrap

from bench.checks import valid_values
from bench.groups import group_files, options
from results.declare import each_setting, info
from results.settings import Config

GROUPS = ("engine", "workload", "network", "cluster", "measure", "tracking", "experiment")

USAGE = """\
Benchmarks DDP and ZeRO training: one cell, or (with -m) every combination of comma-separated values.

  python -m bench stage=2 gpus=4
  python -m bench -m stage=0,1,2,3 gpus=1,2,4,8
  python -m bench -m workload=resnet18 precision=fp32,amp_bf16 bucket_mb=1,25,100
  python -m bench experiment=smoke
  python -m bench workload=module:my_models.net:Net stage=3 gpus=2
  python -m bench reproduce=results/runs/DATE_TIME/records/CELL.json

Each sweep writes records, a summary, figures and a report to results/runs/DATE_TIME/
(hydra.sweep.dir=FOLDER moves it) and logs to MLflow. resume=true goes on where one was cut off.
HYDRA_FULL_ERROR=1 shows the whole traceback of an error.

Exit code: 0, 1 if a cell failed or lost parity (with reproduce=, if what was measured differs), 2 if what was asked for
cannot be run, 130 after Ctrl-C.
"""


def group_options(group: str, choice: str) -> list[str]:
    """The options that ``group=choice`` has, from its file."""
    return sorted(set(group_files(group)[choice]) - {"name", "factory", "package"})


def help_node() -> dict[str, str]:
    return {"app_name": "bench", "header": USAGE, "footer": "", "template": f"{USAGE}\n{knob_table()}"}


def knob_table() -> str:
    """Every knob with its default, its valid values and its meaning, as text of 100 columns."""
    lines = ["Config groups:"]
    lines += [f"  {group + '=':24}{', '.join(options(group))}" for group in GROUPS]
    lines.append("\nKnobs (null: the default of the engine or workload, which the record then holds):")
    for path, spec, value in each_setting(Config()):
        if isinstance(value, dict):
            continue
        default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        lines.append(f"  {path + '=' + default:34}[{valid_values(spec)}]")
        lines += textwrap.wrap(info(spec).help, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)
    for group in ("engine", "workload"):
        lines.append(f"\nOptions of each {group} ({group}.NAME=VALUE):")
        for choice in options(group):
            lines.append(f"  {choice:18}{', '.join(group_options(group, choice)) or '-'}")
    return "\n".join(lines).replace("$", "$$") + "\n"

"""The text of --help: every setting by topic, with its default."""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Any

from bench.groups import group_files, options
from results.declare import each_setting, info, valid_values
from results.settings import Config

GROUPS = ("engine", "workload", "network", "cluster", "measure", "tracking", "experiment")

USAGE = """\
Benchmarks DDP and ZeRO training: one configuration, or (with -m) every combination of comma-separated values.

  python -m bench stage=2 gpus=4
  python -m bench -m stage=0,1,2,3 gpus=1,2,4,8
  python -m bench -m workload=resnet18 precision=fp32,amp_bf16 bucket_mb=1,25,100
  python -m bench experiment=default                        the main sweep of this machine (make bench)
  python -m bench experiment=default dry_run=true           its plan, time and memory; measures nothing
  python -m bench workload=module:my_models.net:Net stage=3 gpus=2
  python -m bench reproduce=results/runs/DATE_TIME/records/CELL.json

Each sweep writes records, a summary, figures and a report to results/runs/DATE_TIME/
(hydra.sweep.dir=FOLDER writes elsewhere) and logs to MLflow. resume=true continues an interrupted sweep.
HYDRA_FULL_ERROR=1 prints the traceback of an error. --version prints versions, --hydra-help the flags of Hydra.

Shell completion (bash; zsh with bashcompinit; fish with install=fish), for the command ddp-zero-bench:
  eval "$(ddp-zero-bench --shell-completion install=bash)"

A password in tracking.uri is visible to all users of the machine (ps). Set MLFLOW_TRACKING_URI, or
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, in the environment instead.

Exit status: 0; 1 if a configuration failed or lost parity (with reproduce=, if results differ); 2 if the request
cannot be run; 130 after Ctrl-C.
"""

TOPICS = {
    "Training (what engines support differs: python -m bench.engines)": (
        *("engine", "stage", "precision", "bucket_mb", "overlap", "accumulate", "compression", "quantize"),
        *("shard_size", "secondary_shard_size", "local_steps", "clip_norm", "compile", "checkpointing"),
        *("checkpointing_budget", "offload", "optimizer", "lr", "momentum", "beta1", "beta2", "eps", "weight_decay"),
        *("lr_schedule", "lr_warmup", "lr_steps"),
    ),
    "Work and ranks": (
        *("workload", "gpus", "device", "backend", "threads", "scaling", "batch_size", "batch_tokens"),
        *("data_skew", "data_dir", "data", "loader.", "seed", "deterministic"),
    ),
    "Launches and time": (
        *("steps", "warmup", "target_loss", "repeats", "timeout_s", "budget_s", "dry_run", "resume", "reproduce"),
    ),
    "Largest batch": ("search", "memory_limit", "search_most"),
    "Hosts": ("cluster.",),
    "Disturbance on purpose": ("straggler.", "network."),
    "Measurements": ("measure.",),
    "Tracking": ("tracking.",),
}
"""Headings of the settings: names, or prefixes that end with a dot. Each setting has one heading."""
OTHER = "Other settings"


def group_options(group: str, choice: str) -> list[str]:
    """The options that ``group=choice`` has, from its file."""
    return sorted(set(group_files(group)[choice]) - {"name", "factory", "package"})


def help_node() -> dict[str, str]:
    text = f"{USAGE}\n{settings_table()}".replace("$", "$$")
    return {"app_name": "bench", "header": "", "footer": "", "template": text}


def settings_table() -> str:
    """Every setting by topic, with its default, valid values and meaning, as text of 100 columns."""
    lines = ["Config groups:"]
    lines += [f"  {group + '=':24}{', '.join(options(group))}" for group in GROUPS]
    lines.append("\nSettings (null: the default of the engine or workload, which the record then contains)")
    for topic in (*TOPICS, OTHER):
        settings = [entry for entry in each_setting(Config()) if topic_of(entry[0]) == topic]
        lines += [f"\n{topic}:"] if settings else []
        for path, spec, value in settings:
            lines += [] if isinstance(value, dict) else _lines_of(path, spec, value)
    for group in ("engine", "workload"):
        lines.append(f"\nOptions of each {group} ({group}.NAME=VALUE):")
        for choice in options(group):
            lines.append(f"  {choice:18}{', '.join(group_options(group, choice)) or '-'}")
    return "\n".join(lines) + "\n"


def topic_of(path: str) -> str:
    """The heading of a setting; ``OTHER`` for one that no topic lists."""
    return next(
        (
            topic
            for topic, names in TOPICS.items()
            if path in names or any(name.endswith(".") and path.startswith(name) for name in names)
        ),
        OTHER,
    )


def _lines_of(path: str, spec: dataclasses.Field[Any], value: Any) -> list[str]:
    default = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    first = f"  {path + '=' + default:34}[{valid_values(spec)}]"
    return [first, *textwrap.wrap(info(spec).help, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)]

"""``python -m bench.engines``: what each engine supports, as the engines themselves declare it.

A row per engine and stage. Each setting is asked for alone, on top of the defaults, at the world size and on the
device given; a yes is a setting that the engine would run, and a test holds every yes against a real run.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from typing import Any

import yaml
from rich.table import Table

from bench import engines
from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported
from bench.groups import CONF, options
from results.identity import as_written
from results.training_settings import choices
from terminal.output import prepare_output
from terminal.tables import bare, console

STAGES = (0, 1, 2, 3)
SETTINGS: dict[str, tuple[Any, ...]] = {
    "precision": choices("precision"),
    "optimizer": choices("optimizer"),
    "bucket_mb": (1.0,),
    "overlap": (True, False),
    "weight_decay": (0.1,),
    "lr_schedule": ("cosine",),
    "clip_norm": (1.0,),
    "accumulate": (2,),
    "compression": choices("compression")[1:],
    "quantize": choices("quantize")[1:],
    "shard_size": (2,),
    "secondary_shard_size": (2,),
    "local_steps": (4,),
    "compile": (True,),
    "checkpointing": choices("checkpointing")[1:],
    "checkpointing_budget": (0.5,),
    "offload": choices("offload")[1:],
    "join": (True,),
    "backend": ("fake",),
}
"""What is asked for, one value at a time."""
NEEDED: dict[str, dict[str, Any]] = {"checkpointing_budget": {"compile": True}}
"""Settings without which no engine supports one of them."""
BACKENDS = {"gloo": "cpu", "nccl": "cuda"}


@dataclasses.dataclass(frozen=True)
class SupportAnswer:
    """Whether an engine supports one setting at one stage."""

    engine: str
    stage: int
    setting: str
    value: Any
    answer: str
    """``yes``, ``unsupported``, or ``unavailable``: its library is not installed."""
    reason: str
    """Why not; empty for a yes."""


def declared(world_size: int, backend: str, only: list[str] | None = None) -> Iterator[SupportAnswer]:
    """Every answer of every engine. A stage that is not supported at all has one answer, of the setting ``stage``."""
    for name in only or options("engine"):
        document = yaml.safe_load((CONF / "engine" / f"{name}.yaml").read_text(encoding="utf-8"))
        package = document.pop("package")
        own = {key: value for key, value in document.items() if key != "name"}
        for stage in STAGES:
            plain = plain_spec(stage, world_size, backend, own)
            yield (first := ask(name, package, plain, "stage", stage))
            if first.answer == "unsupported":
                continue
            for setting, values in SETTINGS.items():
                has = setting in engines.load(package).CAPABILITIES.settings
                for value in values:
                    spec = dataclasses.replace(plain, **(NEEDED.get(setting, {}) if has else {}), **{setting: value})
                    yield ask(name, package, spec, setting, value)


def plain_spec(stage: int, world_size: int, backend: str, own: dict[str, Any]) -> EngineSpec:
    """The defaults of every setting."""
    return EngineSpec(
        stage=stage,
        world_size=world_size,
        device=BACKENDS[backend],
        backend=backend,
        options=own,
    )


def ask(name: str, package: str, spec: EngineSpec, setting: str, value: Any) -> SupportAnswer:
    answer, reason = "yes", ""
    try:
        engines.check_settings(name, package, spec)
    except EngineUnsupported as error:
        answer, reason = "unsupported", str(error)
    except EngineUnavailable as error:
        answer, reason = "unavailable", str(error)
    return SupportAnswer(name, spec.stage, setting, value, answer, reason)


MARKS = {"yes": "+", "unsupported": "·", "unavailable": "?"}
MAX_ENGINES = 6
"""In one table, so that it has at most 80 columns."""


def show(answers: list[SupportAnswer], *, reasons: bool) -> None:
    """Tables on the terminal: a row per setting, a column per engine with a mark for each stage."""
    out = console()
    names = list(dict.fromkeys(answer.engine for answer in answers))
    for first in range(0, len(names), MAX_ENGINES):
        out.print(support_table(answers, names[first : first + MAX_ENGINES]))
    out.print("one mark per stage:  + supported   · unsupported   ? its library is not installed", markup=False)
    if not reasons:
        out.print("--reasons prints why a setting is unsupported", style="dim")
        return
    for reason in dict.fromkeys(answer.reason for answer in answers if answer.reason):
        out.print(f"  {reason}", markup=False, soft_wrap=True)


def support_table(answers: list[SupportAnswer], names: list[str]) -> Table:
    table = bare(("setting", *(name.replace("_", "\n") for name in names)))
    table.add_row("stage", *["0123"] * len(names), style="dim")
    by_key = {(answer.engine, answer.stage, answer.setting, answer.value): answer.answer for answer in answers}

    def marks(setting: str, value: Any) -> list[str]:
        columns = [[(name, stage, setting, stage if value is None else value) for stage in STAGES] for name in names]
        return ["".join(MARKS[by_key.get(key, "unsupported")] for key in keys) for keys in columns]

    table.add_row("defaults", *marks("stage", None))
    for setting, values in SETTINGS.items():
        if len(values) == 1:
            table.add_row(f"{setting}={as_written(values[0])}", *marks(setting, values[0]))
            continue
        table.add_row(setting)
        for value in values:
            table.add_row(f"  {as_written(value)}", *marks(setting, value))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.engines", description=__doc__.partition(":")[2].strip())
    parser.add_argument("engines", nargs="*", metavar="ENGINE", help=f"of {', '.join(options('engine'))}; default: all")
    parser.add_argument("--gpus", type=int, default=4, help="world size (default: %(default)s)")
    parser.add_argument("--backend", choices=sorted(BACKENDS), default="gloo", help="(default: %(default)s)")
    parser.add_argument("--reasons", action="store_true", help="print why each unsupported setting is unsupported")
    parser.add_argument("--json", action="store_true", help="one JSON object a line and answer, for other programs")
    prepare_output()
    arguments = parser.parse_args()
    unknown = [name for name in arguments.engines if name not in options("engine")]
    if unknown:
        parser.error(f"engine {unknown[0]} is unknown; valid: {', '.join(options('engine'))}")
    answers = list(declared(arguments.gpus, arguments.backend, arguments.engines))
    if arguments.json:
        for answer in answers:
            print(json.dumps(dataclasses.asdict(answer)))
    else:
        show(answers, reasons=arguments.reasons)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""python -m bench.regress: the time gate. The current code against another revision's, on one machine in one run.

Either side is a sweep of its own: its conf/ and defaults compose the cells, its fork server runs their ranks with its
code. Their rounds are shared (``bench.sweep.interleaved``). docs/explanation/regression_checks.md says what
results mean.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from bench import engines
from bench.checks import ConfigError, check_sweep
from bench.cli import errors
from bench.cli.compose import from_hydra, register
from bench.cli.one_process import check_alone
from bench.cli.overrides import check_overrides, name_module
from bench.cli.signals import outlive_terminal
from bench.groups import CONF
from bench.launch.launcher import Launcher, LaunchError
from bench.launch.local import LocalLauncher, server_environment
from bench.measure.machine import environment, limits, source
from bench.plan import collectives
from bench.plan.resolve import plan
from bench.regress import report
from bench.regress.revision import RevisionLauncher, ask, checked_out, setting_defaults
from bench.sweep.breakdown import Breakdown
from bench.sweep.interleaved import Interleaved, SideFailed
from bench.sweep.run import INTERRUPTED, Sweep, open_store
from results.environment import Environment
from results.identity import flatten
from results.settings import Config
from results.source import Source
from results.store import sweep_name
from terminal.tables import console

ROUNDS = 20
"""Launches of a cell on either side, unless repeats says otherwise."""
OWN_DEFAULTS = {"repeats": str(ROUNDS), "measure.ceiling": "false", "tracking": "none"}
"""Overrides that stand before a person's own."""
SIDES = ("base", "current")
SAME_WORK = ("batch_size", "scaling", "gpus", "steps", "warmup", "repeats", "seed", "workload")
"""Settings, by the first part of their name, that both sides must have alike for their steps to be compared."""

EXAMPLES = """\
examples:
  python -m bench.regress --base HEAD~1
      the default configuration, 20 launches a side
  python -m bench.regress --base main workload=gpt stage=0,3 gpus=2 repeats=30
      two configurations; what is uncommitted belongs to the current code
  python -m bench.regress --base v1.2 measure=time --same 5
      time alone; less than 5 % is no change

exit code: 0 if nothing is slower (or that cannot be determined, with a warning), 1 if a configuration is slower, needs
more memory, sends more or runs no longer, 2 if nothing could be compared
"""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.regress",
        description="Times the current code against another revision of it, launch by launch in one run, and says "
        "which configurations are slower, faster, the same, or how many launches it would take to tell.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--base", required=True, metavar="REV", help="the commit, branch or tag to compare with")
    parser.add_argument(
        "--base-python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter of the base, with its own packages; default: the current one, so that only code differs",
    )
    parser.add_argument(
        "--same",
        type=float,
        default=100 * report.MARGIN,
        metavar="PERCENT",
        help=f"what counts as the same step time; default: {100 * report.MARGIN:g}",
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="SETTING=VALUE",
        help=f"the configurations, as for python -m bench; lists of values are swept; repeats is {ROUNDS} unless given",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    outlive_terminal()
    options = parser().parse_intermixed_args(arguments)
    try:
        check_alone("bench.regress", sys.argv[1:])
        if not options.same > 0:
            raise ConfigError(f"--same {options.same:g} is not valid; valid: per cent above 0")
        return regress(options.base, options.base_python, options.overrides, options.same / 100)
    except KeyboardInterrupt:
        print("regress: interrupted before anything was measured", file=sys.stderr)
        return INTERRUPTED
    except (ConfigError, LaunchError, HydraException, OmegaConfBaseException, OSError) as error:
        print(f"regress: {errors.explain(error)}", file=sys.stderr)
    return report.NOT_COMPARED


def regress(base: str, base_python: str, overrides: list[str], margin: float) -> int:
    """Measures both sides and compares them; the exit code. Raises ConfigError for what cannot be run."""
    overrides = name_module(overrides)
    check_overrides(overrides)
    given = {override.partition("=")[0] for override in overrides}
    overrides = [f"{setting}={value}" for setting, value in OWN_DEFAULTS.items() if setting not in given] + overrides
    configs, whole = composed(CONF, overrides)
    check(configs)
    if kinds := {config.cluster.kind for config in configs} - {"local"}:
        raise ConfigError(f"cluster={min(kinds)} is not supported by bench.regress, which runs on one machine")
    with contextlib.ExitStack() as stack:
        tree = stack.enter_context(checked_out(base))
        earlier = base_configs(tree, overrides, configs, base, base_python)
        packages = sorted({config.engine["package"] for config in [*earlier, *configs]})
        revision = ask(base, tree, base_python, packages)
        launchers: list[LocalLauncher] = [RevisionLauncher(revision), LocalLauncher(engines.preload(*packages))]
        for launcher in launchers:
            stack.enter_context(launcher)
        codes = [source.collect(overrides, tree), source.collect(overrides)]
        here = environment.collect(launchers[1].machine, server_environment(), codes[1])
        own: Environment = {"torch": launchers[0].machine.torch, "packages": revision.packages}
        there = here | own | {"git": environment.git(codes[0])}
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder = Path(whole.hydra.sweep.dir)
        sweeps = [
            side(folder / name, settings, launcher, where, code, scratch / name)
            for name, settings, launcher, where, code in zip(
                SIDES, (earlier, configs), launchers, (there, here), codes, strict=True
            )
        ]
        announce(sweeps[1], base, there["git"].get("commit", ""), folder)
        complete = True
        try:
            complete = Interleaved(sweeps, sweep_name(folder), configs[0].seed).run()
        except SideFailed as error:  # then no cell is compared, and the code is not 0
            print(f"regress: stopped: {error}", file=sys.stderr)
    before, after = ([sweep.records[cell] for cell in sweep.cells] for sweep in sweeps)
    code = report.compare(before, after, SIDES, margin)
    return code if complete else INTERRUPTED


def composed(
    conf: Path, overrides: list[str], defaults: Mapping[str, Any] | None = None
) -> tuple[list[Config], DictConfig]:
    """The requests that ``conf`` makes of the overrides, as Hydra would, and Hydra's own settings for them.

    Settings that neither sets are as in ``defaults``, which are another code's; None: as here.
    """
    register(defaults)
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(conf), version_base="1.3"):
        parsed = OverridesParser.create().parse_overrides(overrides)
        single = [override.input_line or "" for override in parsed if not override.is_sweep_override()]
        whole = compose("config", overrides=single, return_hydra_config=True)
        swept = [f"{setting}={values}" for setting, values in (whole.hydra.sweeper.params or {}).items()]
        everything = OverridesParser.create().parse_overrides([*swept, *overrides])
        requests = BasicSweeper.split_arguments(everything, None)[0]
        return [from_hydra(compose("config", overrides=request), conf) for request in requests], whole


def check(configs: list[Config]) -> None:
    """Raises ConfigError for cells that have no step time, or too few rounds for any verdict."""
    check_sweep(configs)
    least = report.least_rounds(len(configs))
    if configs[0].repeats < least:
        raise ConfigError(
            f"repeats={configs[0].repeats} cannot find a slowdown in {len(configs)} configuration(s); "
            f"valid: at least {least}"
        )
    for config in configs:
        if config.search != "none" or collectives.is_workload_of(config):
            raise ConfigError("search=max_batch and workload=collectives have no step time to compare; leave them out")
        if config.backend == "fake":
            raise ConfigError("backend=fake runs one rank alone, whose time is compared with nothing; valid: others")
    first = configs[0]
    if first.resume:
        raise ConfigError("resume=true: rounds of another day are no pairs of today's; valid: false")
    if first.reproduce is not None:
        raise ConfigError("reproduce= runs one configuration alone (python -m bench reproduce=RECORD); valid: null")
    if first.tracking.kind != "none":
        raise ConfigError(
            f"tracking={first.tracking.kind}: the gate logs nothing, python -m bench.tracking import FOLDER/base "
            "FOLDER/current does; valid: none"
        )
    if first.dry_run or first.budget_s is not None:
        name = "dry_run=true" if first.dry_run else f"budget_s={first.budget_s:g}"
        raise ConfigError(f"{name} is not supported by bench.regress; leave it out")
    if first.measure.timing_breakdown:
        raise ConfigError("measure.timing_breakdown=true: the time of two sides at once is not laid out; valid: false")


def base_configs(tree: Path, overrides: list[str], configs: list[Config], base: str, base_python: str) -> list[Config]:
    """The same requests as the base's own conf/ and defaults have them. Raises ConfigError if that is other work."""
    if not (tree / "conf" / "config.yaml").exists():
        raise ConfigError(f"--base {base} has no conf/config.yaml; name a later revision")
    theirs = flatten(setting_defaults(base, tree, base_python))
    try:
        configs_of_base, _ = composed(tree / "conf", overrides, theirs)
    except (ConfigError, HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"--base {base} cannot be asked for this: {errors.explain(error)}") from error
    if len(configs_of_base) != len(configs):
        raise ConfigError(
            f"--base {base} makes {len(configs_of_base)} configurations of this, the current code {len(configs)}"
        )
    for before, now in zip(configs_of_base, configs, strict=True):
        old, new = flatten(asdict(before)), flatten(asdict(now))
        for name in dict.fromkeys([*old, *new]):
            if name.partition(".")[0] in SAME_WORK and old.get(name) != new.get(name):
                raise ConfigError(
                    f"{name} is {old.get(name)} at --base {base} and {new.get(name)} now, so steps cannot be compared; "
                    f"give {name}= one value"
                )
    return configs_of_base


def side(
    folder: Path, configs: list[Config], launcher: Launcher, where: Environment, code: Source, scratch: Path
) -> Sweep:
    """One side's sweep, with nothing measured yet."""
    if any(config.batch_tokens is not None for config in configs):
        raise ConfigError("batch_tokens is not supported by bench.regress; valid: batch_size")
    if any(config.data == "loader" and config.data_dir is None for config in configs):
        raise ConfigError("data=loader without data_dir is not supported by bench.regress; valid: data_dir=FOLDER")
    scratch.mkdir()
    cells = plan(configs, launcher.machine, limits.usable_cores())
    return Sweep(cells, open_store(folder, resume=False), launcher, where, scratch, Breakdown(), code)


def announce(sweep: Sweep, base: str, commit: str, folder: Path) -> None:
    out = console(stderr=True, soft_wrap=True)
    rounds = sweep.cells[0].config.repeats
    out.print(
        f"{len(sweep.cells)} configuration(s), {rounds} round(s) of the current code and of {base} "
        f"({commit[:12]}); records in {folder}",
        markup=False,
    )
    for cell in sweep.cells:
        out.print(f"  {cell.id}" + (f"  {cell.status}: {cell.reason}" if cell.status else ""), markup=False)


if __name__ == "__main__":
    sys.exit(main())

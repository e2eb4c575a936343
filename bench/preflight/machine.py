"""Checks of a machine before its numbers are compared: one table, and a line for each fault."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from bench.measure.machine import limits, nvml, source
from bench.measure.machine.command import output
from bench.measure.machine.nvml import State
from bench.measure.machine.source import ROOT
from terminal.tables import bare, console

Verdict = Literal["ok", "note", "wrong"]
LEAST_DISK_BYTES = 5 * 2**30
LEAST_SHARED_BYTES = 64 * 2**20
"""What NCCL needs in /dev/shm for the ranks of one host; Docker's default is just that."""
TORCH = """
import json, torch, torch.distributed as dist
nccl = dist.is_available() and dist.is_nccl_available() and torch.cuda.is_available()
print(json.dumps({
    "torch": torch.__version__,
    "gpus": torch.cuda.device_count(),
    "nccl": ".".join(map(str, torch.cuda.nccl.version())) if nccl else None,
}))
"""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    what: str
    value: str
    verdict: Verdict
    advice: str = ""
    """What is wrong or worth knowing, and what to do; empty where all is well."""


def preflight(place: Path) -> list[Check]:
    """Everything that is looked at before a night's run writes to ``place``."""
    driver, unanswered = nvml.visible(nvml.states()), nvml.why_not()
    return [
        code(),
        locked(installed(), ROOT / "uv.lock"),
        processors(os.getloadavg()[0], limits.usable_cores(), on_gpus=bool(driver)),
        disk("disk", place, LEAST_DISK_BYTES),
        disk("shared memory", Path("/dev/shm"), LEAST_SHARED_BYTES),
        *([Check("driver", "does not answer", "wrong", unanswered)] if unanswered else []),
        *graphics(driver, torch_here()),
    ]


def code() -> Check:
    checkout = source.collect(())
    if not checkout.commit:
        why = f" ({checkout.not_recorded})" if checkout.not_recorded else ""
        return Check("source", "no commit", "note", f"records will not name the commit that ran{why}")
    words = checkout.commit[:10]
    if checkout.dirty:
        return Check("source", words, "note", "there are uncommitted changes, which no commit names")
    return Check("source", words, "ok")


def installed() -> dict[str, str]:
    """Versions by normalized name."""
    pairs = ((entry.metadata["Name"], entry.version) for entry in importlib.metadata.distributions())
    return {normal(name): version for name, version in pairs if name}


def normal(name: str) -> str:
    """A package's name as indices compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(here: dict[str, str], lock: Path) -> Check:
    """Installed packages against the lock; what the lock does not know is not looked at."""
    try:
        packages = tomllib.loads(lock.read_text(encoding="utf-8"))["package"]
    except (OSError, ValueError, KeyError) as error:
        return Check("versions", "no lock", "wrong", f"{lock.name} cannot be read ({error}); run from a checkout")
    versions: dict[str, set[str]] = {}
    for package in packages:
        if "version" in package and package.get("source") != {"editable": "."}:
            versions.setdefault(normal(package["name"]), set()).add(package["version"])
    names = [name for name in here if name in versions]
    other = [f"{name} {here[name]}" for name in sorted(names) if here[name] not in versions[name]]
    if other:
        more = f" and {len(other) - 3} more" if len(other) > 3 else ""
        advice = f"not as in {lock.name}: {', '.join(other[:3])}{more}; make setup installs what it names"
        return Check("versions", f"{len(other)} of {len(names)} differ", "wrong", advice)
    return Check("versions", f"{len(names)} as in {lock.name}", "ok")


def processors(load: float, cores: float, *, on_gpus: bool) -> Check:
    """Whether other processes use the CPUs. With GPUs that disturbs launches; without, it disturbs every number."""
    words = f"{cores:g} cores, load {load:.1f}"
    if load > (0.5 if on_gpus else 0.25) * cores:
        return Check("processors", words, "note", "other processes are at work: times are noisier than usual")
    return Check("processors", words, "ok")


def disk(what: str, place: Path, least_bytes: int) -> Check:
    """Free space where ``place`` is, or will be."""
    there = next(folder for folder in (place.resolve(), *place.resolve().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    words = f"{free / 2**30:.1f} GiB free"
    if free < least_bytes:
        return Check(what, words, "wrong", f"{there} needs at least {least_bytes / 2**30:.2g} GiB; free some")
    return Check(what, words, "ok")


def torch_here() -> dict[str, Any]:
    """The devices that torch sees, read in a process of its own; or an ``error``."""
    answer = output([sys.executable, "-c", TORCH], timeout_s=120)
    try:
        facts: dict[str, Any] = json.loads(answer.text)
    except ValueError:
        return {"error": answer.error or f"python printed {answer.text[:80]!r}"}
    return facts


def graphics(driver: list[State], seen: dict[str, Any]) -> list[Check]:
    """GPUs as the driver and as torch see them: present, idle, fit to keep their clocks, joined by NCCL."""
    if "error" in seen:
        return [Check("torch", "does not start", "wrong", f"python -c 'import torch' fails: {seen['error']}")]
    if not driver and not seen["gpus"]:
        return [Check("GPUs", "none", "note", "a small run on the processors, which says nothing about GPUs")]
    count = f"{seen['gpus']} in torch, {len(driver)} in the driver"
    if seen["gpus"] != len(driver):
        advice = "torch and the driver disagree: a build of torch without CUDA, a driver too old, or a GPU in trouble"
        return [Check("GPUs", count, "wrong", advice)]
    names = sorted({gpu.name for gpu in driver})
    findings = [Check("GPUs", f"{count}: {', '.join(names)}", "ok")]
    findings.append(Check("driver", ", ".join(sorted({gpu.driver_version for gpu in driver})), "ok"))
    if len(names) > 1:
        findings[0] = Check("GPUs", f"{count}: {', '.join(names)}", "wrong", "unlike GPUs have no common step time")
    return [*findings, *map(idle, driver), persistence(driver), nccl(seen)]


def idle(gpu: State) -> Check:
    shares = [
        ("busy", gpu.busy_percent, 1, "%"),
        ("used", gpu.used_bytes, 2**20, "MiB"),
        ("", gpu.temperature_c, 1, "°C"),
        ("", gpu.clock_hz, 1e6, "MHz"),
    ]
    words = ", ".join(
        f"{value / scale:.0f} {unit} {what}".strip() for what, value, scale, unit in shares if value is not None
    )
    if gpu.busy_percent is None or gpu.used_bytes is None:
        return Check(f"GPU {gpu.index}", words, "note", "the driver does not say whether another process uses it")
    if gpu.in_use:
        advice = "another process uses it (nvidia-smi names it); end it, or choose others"
        return Check(f"GPU {gpu.index}", words, "wrong", advice)
    return Check(f"GPU {gpu.index}", words, "ok")


def persistence(driver: list[State]) -> Check:
    off = [str(gpu.index) for gpu in driver if gpu.is_persistent is False]
    if off:
        advice = "each first launch waits for the driver to start; nvidia-smi -pm 1 (root) keeps it up"
        return Check("persistence", f"off on GPU {', '.join(off)}", "note", advice)
    return Check("persistence", "on", "ok")


def nccl(seen: dict[str, Any]) -> Check:
    if not seen["nccl"]:
        return Check("NCCL", "none", "wrong", "this torch has no NCCL, so ranks on GPUs could only use gloo")
    return Check("NCCL", str(seen["nccl"]), "ok")


def table(findings: list[Check]) -> Table:
    drawn = bare(("checked", "found", "", "what to know"))
    styles = {"ok": "", "note": "yellow", "wrong": "bold red"}
    for finding in findings:
        cells = (finding.what, finding.value, finding.verdict, finding.advice)
        drawn.add_row(*cells, style=styles[finding.verdict])
    return drawn


def show(findings: list[Check]) -> bool:
    """Prints the table, and a line on stderr for each thing that is wrong; whether the machine is fit."""
    console().print(table(findings))
    wrong = [finding for finding in findings if finding.verdict == "wrong"]
    for finding in wrong:
        print(f"preflight: {finding.what}: {finding.advice}", file=sys.stderr)
    return not wrong

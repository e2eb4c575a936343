"""ZeRO-Offload and ZeRO-Infinity in DeepSpeed: supported and unsupported settings, and their configuration."""

from __future__ import annotations

import ctypes.util
import os
import shutil
from pathlib import Path
from typing import Any

from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported, OptionInvalid, option
from results.identity import as_written
from results.precision import PRECISIONS

DEFAULTS = {"offload_device": "cpu", "nvme_path": None, "pin_memory": True}
"""Options of offload, as in conf/engine/deepspeed.yaml."""
PIN_BACKEND = "DS_PIN_MEMORY_BACKEND"
"""DeepSpeed's environment variable; ``native`` locks pages of host memory on a CPU too."""


def check_offload(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for what DeepSpeed cannot offload, EngineUnavailable for what it cannot compile."""
    device = option(spec, "offload_device", "cpu", "nvme")
    option(spec, "pin_memory", True, False)
    path = spec.options.get("nvme_path")
    if path is not None and not isinstance(path, str):
        raise OptionInvalid("engine.nvme_path is not valid; valid: a folder, null")
    reject_without_effect(spec)
    if spec.offload == "none":
        return
    what = f"engine=deepspeed at stage={spec.stage} has no offload={spec.offload}"
    if spec.stage == 0:
        raise EngineUnsupported(f"{what}: only its ZeRO optimizers offload; valid: stage=1, 2, 3")
    if spec.offload == "params" and spec.stage < 3:
        raise EngineUnsupported(f"{what}: parameters stay whole on the device; valid: optimizer, stage=3")
    if PRECISIONS[spec.precision].loss_scaling:
        raise EngineUnsupported(f"{what} with precision={spec.precision}: its updates on the host skip no step")
    if spec.precision == "bf16" and spec.options["kernel"] != "deepspeed":
        raise EngineUnsupported(
            f"{what} with precision=bf16 and engine.kernel=torch: it takes bf16 master weights only with its own "
            "optimizer; valid: engine.kernel=deepspeed"
        )
    if spec.options["kernel"] == "deepspeed":
        need("engine.kernel=deepspeed compiles CPUAdam, which needs", "g++", "ninja")
    if device == "nvme":
        check_nvme(spec, what, path)


def reject_without_effect(spec: EngineSpec) -> None:
    """Raises EngineUnsupported for an option of offload, not at its default, that no setting uses."""
    for name, default in DEFAULTS.items() if spec.offload == "none" else ():
        if spec.options.get(name) != default:
            raise EngineUnsupported(
                f"engine.{name}={as_written(spec.options[name])} has no effect with offload=none; "
                f"valid: engine.{name}={as_written(default)}, offload=optimizer, offload=params"
            )
    if spec.options.get("nvme_path") is not None and spec.options["offload_device"] != "nvme":
        raise EngineUnsupported(
            f"engine.nvme_path={spec.options['nvme_path']} has no effect with "
            f"engine.offload_device={spec.options['offload_device']}; "
            "valid: engine.nvme_path=null, engine.offload_device=nvme"
        )
    pins = spec.device != "cpu" or os.environ.get(PIN_BACKEND) == "native"
    if not spec.options["pin_memory"] and not pins:
        raise EngineUnsupported(
            "engine.pin_memory=false has no effect with device=cpu, where DeepSpeed pins no memory; "
            f"valid: engine.pin_memory=true, device=cuda, the environment variable {PIN_BACKEND}=native"
        )


def check_nvme(spec: EngineSpec, what: str, path: str | None) -> None:
    """Raises EngineUnsupported or EngineUnavailable for state on an NVMe drive."""
    if spec.stage < 3:
        raise EngineUnsupported(
            f"{what} with engine.offload_device=nvme: it would keep the state in host memory; valid: stage=3"
        )
    if path is None or not Path(path).is_dir():
        raise EngineUnsupported(f"{what} with engine.offload_device=nvme: engine.nvme_path must be a folder")
    if ctypes.util.find_library("aio") is None:
        raise EngineUnavailable(
            "engine.offload_device=nvme needs libaio, which is not installed; on Debian and Ubuntu: "
            "apt-get install libaio-dev"
        )
    need("engine.offload_device=nvme compiles async_io, which needs", "g++", "ninja")


def need(what: str, *commands: str) -> None:
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        raise EngineUnavailable(
            f"{what} {missing[0]}, which is not installed; on Debian and Ubuntu: apt-get install g++ ninja-build"
        )


def zero_offload(spec: EngineSpec) -> dict[str, Any]:
    """The entries of ``zero_optimization`` (https://www.deepspeed.ai/docs/config-json/); none without offload."""
    if spec.offload == "none":
        return {}
    place = {"device": spec.options["offload_device"], "pin_memory": spec.options["pin_memory"]}
    if spec.options["offload_device"] == "nvme":
        place["nvme_path"] = spec.options["nvme_path"]
    entries = {"offload_optimizer": place}
    return entries | ({"offload_param": place} if spec.offload == "params" else {})

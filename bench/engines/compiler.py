"""``compile=true``: what it needs, and what cannot go with it. Needs no torch: plans are made with it."""

from __future__ import annotations

import os
import shutil

from bench.engines.spec import EngineSpec, EngineUnavailable, EngineUnsupported, Traits

TRAITS = Traits(own_random="the model draws random numbers, and compiled code (compile=true) draws others")


def check_compile(engine: str, spec: EngineSpec) -> None:
    """Raises EngineUnavailable without a compiler, EngineUnsupported with activation checkpointing."""
    if not spec.compile:
        return
    _need_compiler(spec.device)
    if spec.checkpointing != "none":
        raise EngineUnsupported(
            f"engine={engine} has no checkpointing={spec.checkpointing} with compile=true: the compiler decides what "
            "backward computes again"
        )


def _need_compiler(device: str) -> None:
    """torch.compile writes C++ for a CPU; on a GPU, Triton builds its launchers with a C compiler."""
    override = os.environ.get("CXX" if device == "cpu" else "CC")
    tried = (override,) if override else ("g++",) if device == "cpu" else ("gcc", "clang")
    if not any(shutil.which(compiler) for compiler in tried):
        name = "C++ compiler" if device == "cpu" else "C compiler"
        raise EngineUnavailable(f"compile=true needs a {name}, and {' or '.join(tried)} is not installed")

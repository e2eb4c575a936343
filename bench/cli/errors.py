"""Errors of a request as one line and an exit status."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from bench.checks import ConfigError
from bench.cli.one_process import NOT_RUN

FULL_ERROR = "BENCH_FULL_ERROR"
"""Set where the person wants tracebacks; HYDRA_FULL_ERROR itself is always set (see ``bench.__main__``)."""


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Ends the process with one line for an error of the user; HYDRA_FULL_ERROR=1 shows the traceback instead."""
    try:
        yield
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except (ConfigError, HydraException, OmegaConfBaseException, YAMLError, OSError) as error:
        if os.environ.get(FULL_ERROR) == "1":
            raise
        print(f"bench: {explain(error)}", file=sys.stderr)
        raise SystemExit(NOT_RUN) from None


def explain(error: Exception) -> str:
    """The innermost message in one line, without a traceback."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception) and not isinstance(error, ConfigError):
        error = error.__cause__
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark):
        return (
            f"{mark.name}, line {mark.line + 1}, is not valid YAML: {error.problem or error.context}; "
            "indent with spaces, as deep as the lines around it"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]) if lines else type(error).__name__

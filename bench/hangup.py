"""A terminal or a reader that goes away: it interrupts a command at most once, and costs it only what it says then."""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Lasting(io.FileIO):
    """A stream that takes what is written to it whether or not anybody still reads."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data) or memoryview(data).nbytes
        except OSError:
            return memoryview(data).nbytes


def outlive_terminal() -> None:
    """Lets SIGTERM and a closed terminal interrupt as Ctrl-C does, and the command then end as it means to.

    A signal that whoever started the command ignores, as nohup does, stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started the command
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _lasting(stream))


def _interrupt(number: int, _frame: object) -> None:
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # a shell says it too, and then the kernel once more
    raise KeyboardInterrupt


def _lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """The same stream, with ± where its encoding has it and something else where not."""
    return io.TextIOWrapper(
        io.BufferedWriter(Lasting(stream.fileno(), "w", closefd=False)),
        stream.encoding,
        "replace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )

"""A terminal or a pipe that closes: it interrupts a command at most once, and only later output is lost."""

from __future__ import annotations

import io
import signal
from typing import TYPE_CHECKING

from terminal.output import prepare_output

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
    prepare_output(Lasting)


def _interrupt(number: int, _frame: object) -> None:
    if number == signal.SIGHUP:
        signal.signal(number, signal.SIG_IGN)  # a shell says it too, and then the kernel once more
    raise KeyboardInterrupt

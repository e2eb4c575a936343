"""Standard output and error of every command: any text can be written to any terminal, and none of it controls one.

A character that the encoding of the terminal lacks is written in others. A control character that comes from a record,
a rank or a file name is written as U+FFFD. Only ``rich`` writes control sequences, to the stream below this one.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
import unicodedata

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that move a cursor, change a terminal's state or reorder what is read; not tab and newline."""
SHOWN = "\ufffd"
IN_ASCII = {
    **{"±": "+/-", "×": "x", "·": ".", "−": "-", "–": "-", "—": "-", "…": "...", "•": "*", "≥": ">=", "≤": "<="},
    **{"α": "alpha", "β": "beta", "σ": "sigma", "Δ": "delta", "μ": "u", "µ": "u", "→": "->", "←": "<-", "≈": "~"},
    **{"‘": "'", "’": "'", "“": '"', "”": '"', "√": "sqrt", "∞": "inf", "≠": "!=", "°": " deg"},
}
ERRORS = "bench.in_ascii"


def without_controls(text: str) -> str:
    """The text with each control character replaced by a visible one."""
    return CONTROLS.sub(SHOWN, text)


def in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Error handler of an encoding: what it lacks, in ASCII, or as a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_in_ascii, error.object[error.start : error.end])), error.end


def _in_ascii(character: str) -> str:
    if character in IN_ASCII:
        return IN_ASCII[character]
    return unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"


codecs.register_error(ERRORS, in_ascii)


class TerminalOutput(io.TextIOWrapper):
    """A stream for text without control sequences; ``rich_proxied_file`` is the one below it, which takes them."""

    rich_proxied_file: io.TextIOWrapper

    def write(self, text: str, /) -> int:
        super().write(without_controls(text))
        return len(text)


def prepare_output(kind: type[io.FileIO] = io.FileIO) -> None:
    """Gives this process such streams, on files of this kind; a stream that its parent closed leads nowhere.

    Streams that something else has put in place, such as a test, stay.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (as long as the process)
        elif stream is getattr(sys, f"__{name}__"):
            setattr(sys, name, _output(stream, kind))


def _output(stream: io.TextIOWrapper, kind: type[io.FileIO]) -> TerminalOutput:
    stream.flush()
    buffer = io.BufferedWriter(kind(stream.fileno(), "w", closefd=False))
    lines = stream.line_buffering or stream.write_through  # PYTHONUNBUFFERED turns the first off
    below, output = (
        # Both write through: their order is that of the calls.
        make(buffer, stream.encoding, ERRORS, line_buffering=lines, write_through=True)
        for make in (io.TextIOWrapper, TerminalOutput)
    )
    assert isinstance(output, TerminalOutput)
    output.rich_proxied_file = below
    return output

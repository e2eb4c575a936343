"""The comparison of a record with its repetition: in JSON and Markdown in the run's folder, and on the terminal."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.text import Text

from results.record import Record
from results.shown import shown
from terminal.tables import bare, console

COMMIT = re.compile("[0-9a-f]{7,64}")


def compare(before: Record, after: Record, folder: Path) -> bool:
    """Writes and prints the comparison; whether every quantity that decides agrees."""
    from analysis.comparison import reproduction

    document = reproduction.document(before, after)
    write(before, folder, document, reproduction.markdown(before, after))
    show(before, after, folder)
    return bool(document["reproduced"])


def write(before: Record, folder: Path, document: dict[str, Any], text: str) -> None:
    """Writes the comparison to the run's folder, and the record's patch where there is one."""
    try:
        (folder / "reproduction.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
        (folder / "reproduction.md").write_text(text, encoding="utf-8")
        if before.source and before.source.patch:
            (folder / "source.patch").write_text(before.source.patch, encoding="utf-8")
    except OSError as error:
        print(f"the comparison could not be written to {folder}: {error}", file=sys.stderr)


def show(before: Record, after: Record, folder: Path) -> None:
    """Prints the comparison."""
    from analysis.comparison import reproduction

    out = console(soft_wrap=True)
    table = bare(("figure", "then", "now", "", "decides"))
    for line in reproduction.lines(before, after):
        style = "red" if line.decides and line.verdict == "differs" else ""
        words = (line.figure, line.then, line.now, line.verdict, "yes" if line.decides else "")
        table.add_row(*words, style=style)
    out.print()
    out.print(table)
    for entry in reproduction.changed(before, after):
        out.print(Text(f"differs: {entry}", style="yellow"))
    if before.source and after.source and before.source.digest != after.source.digest:
        out.print(Text(f"the record's code: {how_to_have(before, folder)}", style="yellow"))
    out.print(Text(f"{reproduction.summary(before, after)}  {folder / 'reproduction.md'}", style="bold"))


def how_to_have(record: Record, folder: Path) -> str:
    """The command that restores the code of a record, as far as the record has it."""
    source = record.source
    if source is None or not source.commit:
        return "the record names no commit"
    if not COMMIT.fullmatch(source.commit):
        return f"the record's commit is not valid: {shown(source.commit)}"
    words = f"git checkout {source.commit}"
    if source.patch:
        words += f" && git apply {shlex.quote(str(folder / 'source.patch'))}"
    if source.patch_cut:
        words += (
            f" (the record holds only the first {len(source.patch):,} of {source.patch_bytes:,} bytes of the patch)"
        )
    if source.untracked:
        words += f"; not tracked, known by SHA-256 only: {', '.join(map(shlex.quote, source.untracked))}"
    return words

"""Provenance: the command that runs the sweep again, and the environment."""

from __future__ import annotations

from analysis.report.model.content import Content
from analysis.report.model.section import Section, Value, table, words
from analysis.table import provenance

MOST_COMMANDS = 12


def sections(content: Content) -> list[Section]:
    """The commands, and every entry of the environments."""
    commands = provenance.commands(content.records)
    left = len(commands) - MOST_COMMANDS
    more = [f"And {left} more, one per configuration: each record has its own settings."] if left > 0 else []
    rows = [[Value(name), Value(value)] for name, value in provenance.environment_rows(content.records)]
    return [
        Section(
            "Run it again",
            "run-again",
            prose=["Every setting is spelled out, so a changed default cannot change the run."],
            commands=commands[:MOST_COMMANDS],
            notes=more,
            folded="all",
        ),
        Section("Environment", "environment", tables=table(words("name", "value"), rows), folded="all"),
    ]

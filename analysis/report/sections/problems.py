"""Failed configurations, and warnings on those that were timed."""

from __future__ import annotations

from analysis.report.model.content import Content
from analysis.report.model.section import Alert, ListItem, Points, Section
from analysis.table.warnings import Flag, failures, verdicts
from analysis.text.units import counted, spoken


def sections(content: Content) -> list[Section]:
    """The failed configurations, and the warnings."""
    failed = [
        ListItem(f"{flag.meaning}.", flag.cells, spoken(flag.name), flag.reason) for flag in failures(content.table)
    ]
    failed += [ListItem("", tag="warning", quoted=warning) for warning in content.warnings]
    warned = [ListItem(_text(flag), flag.cells, spoken(flag.name)) for flag in verdicts(content.table)]
    return [
        Section("Failed configurations", "failures", lists=[Points(failed)] if failed else [], tone="bad"),
        Section("Warnings", "warnings", lists=[Points(warned)] if warned else [], tone="care"),
    ]


def _text(flag: Flag) -> str:
    return f"{flag.meaning} {flag.reason}." if flag.reason else flag.meaning


def alerts(content: Content) -> list[Alert]:
    """One line each for failures and for warnings."""
    failed, warned = failures(content.table), verdicts(content.table)
    entries = []
    if failed:
        count = int((content.table["status"] != "ok").sum())
        kinds = ", ".join(dict.fromkeys(spoken(flag.name) for flag in failed))
        entries.append(Alert(f"{counted(count, 'configuration')} did not end ok: {kinds}", "failures", "bad"))
    if content.warnings:
        entries.append(Alert(counted(len(content.warnings), "warning about files"), "failures", "bad"))
    if warned:
        names = ", ".join(spoken(flag.name) for flag in warned)
        entries.append(Alert(f"{counted(len(warned), 'warning')}: {names}", "warnings", "care"))
    return entries

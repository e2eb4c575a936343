"""Reads the project's Markdown: prose, tables, fenced commands, links and headings, each with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\w*)")
ITEM = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+")
SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+(?=[A-Z0-9\"'(\[*`]|[a-z_]+:)")
ABBREVIATIONS = re.compile(r"\b(e\.g|i\.e|et al|vs|Fig|No|approx|cf)\.")
LINK = re.compile(r"!?\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)(?:\s+\"[^\"]*\")?\)")
HTML = re.compile(r"<!--.*?-->", re.S)


def documents() -> list[Path]:
    """Every document that a person reads: the README, docs and the files of the repository's root."""
    return [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]


@dataclass(frozen=True)
class Block:
    """Consecutive lines of one kind."""

    kind: str
    """``prose``, ``item``, ``table``, ``heading`` or ``code``."""
    line: int
    text: str
    language: str = ""
    """Of code."""


def blocks(text: str) -> Iterator[Block]:
    """The blocks of a document. Indented code counts as code; comments are dropped."""
    text = HTML.sub(lambda match: "\n" * match.group().count("\n"), text)
    lines = text.split("\n")
    at = 0
    within_list = False
    while at < len(lines):
        line = lines[at]
        if fence := FENCE.match(line):
            end = next(
                (n for n in range(at + 1, len(lines)) if lines[n].strip().startswith(fence.group(1))), len(lines) - 1
            )
            yield Block("code", at + 1, "\n".join(lines[at + 1 : end]), fence.group(2))
            at = end + 1
            continue
        if not line.strip():
            at += 1
            continue
        if line.startswith("    ") and not within_list:
            end = _end(lines, at, lambda other: other.startswith("    "))
            yield Block("code", at + 1, "\n".join(lines[at:end]))
        elif line.startswith("#"):
            yield Block("heading", at + 1, line.lstrip("#").strip())
            within_list, end = False, at + 1
        elif line.lstrip().startswith("|"):
            end = _end(lines, at, lambda other: other.lstrip().startswith("|"))
            yield Block("table", at + 1, "\n".join(lines[at:end]))
        else:
            item = bool(ITEM.match(line))
            within_list = item or (within_list and line.startswith(" "))
            end = _end(lines, at, lambda other: bool(other.strip()) and not _starts(other))
            yield Block("item" if item else "prose", at + 1, ITEM.sub("", "\n".join(lines[at:end]), count=1))
        at = end


def _starts(line: str) -> bool:
    return bool(ITEM.match(line) or FENCE.match(line) or line.startswith("#") or line.lstrip().startswith("|"))


def _end(lines: list[str], at: int, goes_on: Callable[[str], bool]) -> int:
    end = at + 1
    while end < len(lines) and goes_on(lines[end]):
        end += 1
    return end


def plain(text: str) -> str:
    """Without markup: a link is its text, code is one word, emphasis is dropped."""
    text = LINK.sub(lambda match: match.group(1), text)
    text = re.sub(r"``?[^`]+``?", "CODE", text)
    text = re.sub(r"<https?://[^>]+>", "URL", text)
    return re.sub(r"\*\*|__|(?<!\w)\*|\*(?!\w)", "", text)


def sentences(text: str) -> list[str]:
    """The sentences of a block of prose, on one line each."""
    text = ABBREVIATIONS.sub(lambda match: match.group(1), " ".join(plain(text).split()))
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def words(sentence: str) -> int:
    """Words of a sentence: what has a letter or a digit."""
    return sum(bool(re.search(r"\w", word)) for word in sentence.split())


def cells(table: str) -> list[str]:
    """The cells of a table, without its ruler."""
    rows = [row.strip().strip("|").split("|") for row in table.split("\n")]
    return [cell.strip() for row in rows for cell in row if re.search(r"\w", cell)]


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub and MkDocs make them."""
    made: set[str] = set()
    for block in blocks(text):
        if block.kind == "heading":
            heading = plain(re.sub(r"`([^`]*)`", r"\1", block.text)).lower()
            made.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip()))
    return made

"""The documents are written in plain language: short sentences, and the field's terms instead of private ones."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest

from tests.documents.markdown import ROOT, Block, blocks, cells, documents, plain, sentences, words

MAX_MEAN = 18
MAX_WORDS = 40

PRIVATE = {
    r"\bknobs?\b": "setting",
    r"\brefus(?:e|es|ed|al|als|ing)\b": "not supported, rejected, or an error",
    r"\bbeside\b": "in addition to, next to",
    r"\banew\b": "again",
    r"\b(?:told|tells)\b": "shows, states, determines",
    r"\bgoes on\b": "continues, resumes",
    r"\bnot to be had\b": "unavailable",
    r"\b(?:is|are) to be\b": "must be",
    r"\bleanest\b": "lowest peak memory",
    r"\bfatter\b": "more memory",
    r"\bledgers?\b": "collective trace, memory breakdown",
    r"\b(?:exact|time) gate\b": "counter check, performance regression check",
    r"\bnetwork lab\b|\bin the lab\b": "network emulation",
    r"\bforeign process(?:es)?\b": "background load",
    r"\bnot steady\b": "drift within a run",
    r"\bon the wire\b": "at the network interface",
    r"\bsilent launch(?:es)?\b": "launch without communication",
    r"\bunseen\b": "unattributed",
    r"\boutside parity\b": "not numerically equivalent",
    r"\bstrays\b": "orphan processes",
    r"\bverdicts?\b": "warning",
    r"\bends with (?:status )?[0-3]\b": "exits with status N",
    r"\battains?\b": "has the level",
    r"\branks meet\b": "ranks synchronize",
    r"\blast words?\b": "last error output",
    r"\bit is said\b": "Claim",
    r"\ba (?:rank|step)'s (?:mosts?)\b": "maximum",
    r"\bhonours?\b|\bhonoured\b": "honors, supports",
}
"""Words of the project's former private vocabulary, each with what to write instead."""

CLAIM_VERDICT = re.compile(r"docs/claims/")
"""Claims have verdicts; configurations have warnings."""


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Every sentence of a document's paragraphs and lists, with its line."""
    for block in blocks(text):
        if block.kind in ("prose", "item"):
            yield from ((block.line, sentence) for sentence in sentences(block.text))


def tables(text: str) -> Iterator[tuple[int, str]]:
    for block in blocks(text):
        if block.kind == "table":
            yield from ((block.line, sentence) for cell in cells(block.text) for sentence in sentences(cell))


def too_long(text: str) -> list[str]:
    return [
        f"{line}: {words(sentence)} words: {sentence}"
        for line, sentence in (*prose(text), *tables(text))
        if words(sentence) > MAX_WORDS
    ]


def private(text: str, name: str = "") -> list[str]:
    """Private words outside of code, each with its line and what to write instead."""
    return [
        f"{block.line}: {match.group()!r}: write {instead}"
        for block in blocks(text)
        if block.kind != "code"
        for pattern, instead in PRIVATE.items()
        if not (CLAIM_VERDICT.search(name) and "verdict" in pattern)
        for match in re.finditer(pattern, plain(block.text), re.IGNORECASE)
    ]


def mean_words(text: str) -> float:
    counts = [words(sentence) for _, sentence in prose(text)]
    return fmean([count for count in counts if count > 2] or [0])


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", documents(), ids=name)
def test_no_sentence_is_longer_than_forty_words(path: Path) -> None:
    assert too_long(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", documents(), ids=name)
def test_sentences_have_at_most_eighteen_words_on_average(path: Path) -> None:
    assert mean_words(path.read_text(encoding="utf-8")) <= MAX_MEAN


@pytest.mark.parametrize("path", documents(), ids=name)
def test_words_are_the_fields_own(path: Path) -> None:
    assert private(path.read_text(encoding="utf-8"), name(path)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "explanation").glob("*.md")), ids=name)
def test_an_explanation_has_at_most_1200_words(path: Path) -> None:
    text = [block.text for block in blocks(path.read_text(encoding="utf-8")) if block.kind != "code"]
    assert sum(map(words, text)) <= 1200


def test_a_long_sentence_and_a_private_word_are_noticed() -> None:
    text = f"# Title\n\nShort one. {'word ' * 41}end.\n\n- It is refused.\n\n```\nrefused\n```\n\n| a | the knob |\n"
    assert len(too_long(text)) == 1
    assert [line.split(":")[1].strip() for line in private(text)] == ["'refused'", "'knob'"]


def test_code_is_one_word_and_a_link_is_its_text() -> None:
    assert sentences("Run `a b c` first. See [the page](x.md).") == ["Run CODE first.", "See the page."]


def test_blocks_of_every_kind_are_distinguished() -> None:
    text = "# H\n\npara\nmore\n\n    indented\n\n- item\n  rest\n\n```bash\nmake\n```\n| a | b |\n| - | - |\n"
    assert [block.kind for block in blocks(text)] == ["heading", "prose", "code", "item", "code", "table"]
    assert next(block for block in blocks(text) if block.language) == Block("code", 11, "make", "bash")

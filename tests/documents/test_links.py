"""Links in the documents lead to files and headings that exist."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.documents.markdown import LINK, ROOT, anchors, blocks, documents

MADE_BY_A_TEST = "docs/page.md"


def broken(path: Path) -> list[str]:
    """Relative links of a document whose file or heading does not exist, each with its line."""
    wrong = []
    for block in blocks(path.read_text(encoding="utf-8")):
        if block.kind == "code":
            continue
        for match in LINK.finditer(block.text):
            file, _, anchor = match.group(2).partition("#")
            if file.startswith(("http://", "https://", "mailto:")):
                continue
            target = (path.parent / file).resolve() if file else path
            if not target.is_relative_to(ROOT) or not target.exists():
                wrong.append(f"{block.line}: no {match.group(2)}")
            elif anchor and anchor not in anchors(target.read_text(encoding="utf-8")):
                wrong.append(f"{block.line}: no heading #{anchor} in {target.name}")
    return wrong


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(path: Path) -> None:
    assert broken(path) == []


def test_a_broken_link_and_a_broken_anchor_are_noticed() -> None:
    path = ROOT / "docs" / "index.md"
    text = "[a](nowhere.md) [b](reference/glossary.md#no-such) [c](reference/glossary.md#glossary)"
    here = path.with_name("link_test_page.md")
    here.write_text(text, encoding="utf-8")
    try:
        assert broken(here) == ["1: no nowhere.md", "1: no heading #no-such in glossary.md"]
    finally:
        here.unlink()


def test_every_page_of_the_site_is_linked_from_a_page() -> None:
    pages = set((ROOT / "docs").rglob("*.md"))
    linked = {
        (path.parent / match.group(2).partition("#")[0]).resolve()
        for path in documents()
        for match in LINK.finditer(path.read_text(encoding="utf-8"))
    }
    assert pages - linked - {ROOT / "docs" / "index.md"} == set()


def test_documents_named_in_code_exist() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    suffixes = (".py", ".sh", ".yaml", ".yml", ".j2", ".toml", "Makefile", "Dockerfile")
    named = {
        (file, name)
        for file in listed
        if file.endswith(suffixes) and (ROOT / file).exists() and "documents/" not in file
        for name in re.findall(r"(?<![\w/.])docs/[\w/.-]+\.md", (ROOT / file).read_text(encoding="utf-8"))
    }
    missing = sorted((file, name) for file, name in named if not (ROOT / name).exists())
    assert [pair for pair in missing if pair[1] != MADE_BY_A_TEST] == []

"""Hook of mkdocs: links from docs/ to files outside of it become code, since the site does not have those files.

On GitHub they are links. ``mkdocs build --strict`` checks all others.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

LINK = re.compile(r"\[([^\[\]]*)\]\(((?:\.\./)+[^()\s#]*)(#[^()\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page's Markdown without links that leave docs/."""
    folder = posixpath.dirname(page.file.src_uri)

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, match[2]))
        return f"{match[1]} (`{target.removeprefix('../')}`)" if target.startswith("../") else match[0]

    return LINK.sub(link, markdown)

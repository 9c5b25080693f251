"""Conversion of links between files of the repository to links between pages of the site."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]

EXTERNAL_PAGES = {
    "datasets/README.md": "datasets.md",
    "examples/README.md": "examples.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
"""{file outside docs/: its page in the site}."""

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def rewrite_links(markdown: str, page: str) -> str:
    """Rewrite the links of a page.

    A link to a file that is not a page is replaced by the name of the file. Links to missing files
    are unchanged, so that MkDocs reports them.

    Args:
        markdown: text of the page.
        page: path of the page in the site.

    Returns:
        The text with rewritten links.
    """
    source = {uri: file for file, uri in EXTERNAL_PAGES.items()}.get(page, f"docs/{page}")

    def rewrite(match: re.Match[str]) -> str:
        text, target, anchor = match[1], match[2], match[3] or ""
        file = os.path.normpath(PurePosixPath(source).parent / target)
        uri = EXTERNAL_PAGES.get(
            file, file.removeprefix("docs/") if file.startswith("docs/") else None
        )
        if uri is not None:
            return f"[{text}]({os.path.relpath(uri, PurePosixPath(page).parent)}{anchor})"
        if not (ROOT / file).exists():
            return match[0]
        return text if text.strip("`") in (file, target) else f"{text} (`{file}`)"

    return LINK.sub(rewrite, markdown)

"""A page in one file: tables, text and pictures, and nothing that is fetched from elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path

Grid = Sequence[Sequence[str]]
"""A table: its header, then its lines."""

STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --page: #fff; --rule: #d9dce1; --soft: #f4f5f7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e6ea; --page: #16181b; --rule: #3a3e45; --soft: #20242a; }
}
body { margin: 2rem auto; padding: 0 1rem; max-width: 76rem; color: var(--ink);
  background: var(--page); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--rule);
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
tbody tr:hover { background: var(--soft); }
td.better { color: #1a7f37; font-weight: 600; } td.worse { color: #cf222e; font-weight: 600; }
img { max-width: 100%; background: #fff; border-radius: 6px; }
pre { padding: .8rem; overflow-x: auto; background: var(--soft); font-size: .8rem; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole document of parts that are HTML already."""
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{escape(title)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def preformatted(text: str) -> str:
    """Text as it stands."""
    return f"<pre>{escape(text)}</pre>"


def table(grid: Grid) -> str:
    """A table; cells that say "better" or "worse" are coloured."""
    header, *body = grid
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = "\n".join(f"<tr>{''.join(map(_cell, line))}</tr>" for line in body)
    return (
        f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{lines}\n</tbody>\n</table></div>"
    )


def _cell(text: str) -> str:
    verdict = f' class="{text}"' if text in ("better", "worse") else ""
    return f"<td{verdict}>{escape(text)}</td>"


def picture(file: Path, what: str) -> str:
    """A PNG file, its bytes in the page itself."""
    data = b64encode(file.read_bytes()).decode("ascii")
    return (
        f"<figure><figcaption>{escape(what)}</figcaption>"
        f'<img alt="{escape(what)}" src="data:image/png;base64,{data}"></figure>'
    )

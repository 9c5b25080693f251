"""Diagram of stacked blocks, drawn with box-drawing characters."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from textwrap import wrap

MAX_LINE_WIDTH = 96
"""Maximum line width in characters; longer block texts are wrapped where possible."""

MIN_COLUMN_WIDTH = 14
"""Minimum width of a column in characters."""

CONNECTORS = {(True, True): "┼", (True, False): "┴", (False, True): "┬", (False, False): "─"}
"""{(the row above is divided, the row below is divided): character between two columns}."""


def draw_rows(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> str:
    """Draw rows of blocks below the word "image", and a label below each column.

    Args:
        rows: rows from top to bottom; a row is the text of one block that spans all columns, or
            one text per column.
        labels: label of each column.

    Returns:
        The drawing, lines separated by newlines.
    """
    count = len(labels)
    longest = max(-(-len(text) * len(row) // count) for row in rows for text in row)
    widest = max(MIN_COLUMN_WIDTH, (MAX_LINE_WIDTH - 1) // count - 3)
    width = min(max(longest, MIN_COLUMN_WIDTH, *map(len, labels)), widest)
    return "\n".join(_draw_lines(rows, labels, width))


def _draw_lines(rows: Sequence[Sequence[str]], labels: Sequence[str], width: int) -> Iterator[str]:
    count = len(labels)
    whole = count * (width + 3) - 3
    num_blocks = [1, *map(len, rows), 1]
    connectors = [CONNECTORS[above > 1, below > 1] for above, below in pairwise(num_blocks)]
    first, *rules, last = [connector.join(["─" * (width + 2)] * count) for connector in connectors]
    yield f"{'image':^{whole + 4}}".rstrip()
    yield f"┌{first}┐"
    for row, rule in zip_longest(rows, rules):
        yield from _draw_row(row, whole if len(row) == 1 else width)
        yield f"├{rule}┤" if rule else f"└{last}┘"
    yield "  " + "   ".join(f"{label:<{width}}" for label in labels).rstrip()


def _draw_row(texts: Sequence[str], width: int) -> Iterator[str]:
    """Yield the lines of one row, as many as its longest text needs."""
    for line in zip_longest(*(wrap(text, width) for text in texts), fillvalue=""):
        yield f"│ {' │ '.join(f'{part:<{width}}' for part in line)} │"

"""A wall of bricks as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from textwrap import wrap

MAX_LINE_WIDTH = 96
"""Characters of a line, where texts can be broken to fit."""

MIN_COLUMN_WIDTH = 14
"""Characters of a column."""

CONNECTORS = {(True, True): "┼", (True, False): "┴", (False, True): "┬", (False, False): "─"}
"""{(columns part above, columns part below): what stands between them}."""


def draw_rows(rows: Sequence[Sequence[str]], labels: Sequence[str]) -> str:
    """Draw it.

    Args:
        rows: from top to bottom, the texts of one brick that spans all columns or of one a
            column.
        labels: what stands below each column.
    """
    count = len(labels)
    longest = max(-(-len(text) * len(row) // count) for row in rows for text in row)
    widest = max(MIN_COLUMN_WIDTH, (MAX_LINE_WIDTH - 1) // count - 3)
    width = min(max(longest, MIN_COLUMN_WIDTH, *map(len, labels)), widest)
    return "\n".join(_draw_lines(rows, labels, width))


def _draw_lines(rows: Sequence[Sequence[str]], labels: Sequence[str], width: int) -> Iterator[str]:
    count = len(labels)
    whole = count * (width + 3) - 3
    bricks = [1, *map(len, rows), 1]
    joints = [CONNECTORS[above > 1, below > 1] for above, below in pairwise(bricks)]
    first, *rules, last = [joint.join(["─" * (width + 2)] * count) for joint in joints]
    yield f"{'image':^{whole + 4}}".rstrip()
    yield f"┌{first}┐"
    for row, rule in zip_longest(rows, rules):
        yield from _draw_row(row, whole if len(row) == 1 else width)
        yield f"├{rule}┤" if rule else f"└{last}┘"
    yield "  " + "   ".join(f"{foot:<{width}}" for foot in labels).rstrip()


def _draw_row(texts: Sequence[str], width: int) -> Iterator[str]:
    """As many lines as the longest text needs."""
    for line in zip_longest(*(wrap(text, width) for text in texts), fillvalue=""):
        yield f"│ {' │ '.join(f'{part:<{width}}' for part in line)} │"

"""A wall of bricks as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from textwrap import wrap

WIDEST = 96
"""Characters of a line, where texts can be broken to fit."""

NARROWEST = 14
"""Characters of a column."""

JOINTS = {(True, True): "┼", (True, False): "┴", (False, True): "┬", (False, False): "─"}
"""{(columns part above, columns part below): what stands between them}."""


def wall(courses: Sequence[Sequence[str]], feet: Sequence[str]) -> str:
    """Draw it.

    Args:
        courses: from top to bottom, the texts of one brick that spans all columns or of one a
            column.
        feet: what stands below each column.
    """
    count = len(feet)
    longest = max(-(-len(text) * len(row) // count) for row in courses for text in row)
    widest = max(NARROWEST, (WIDEST - 1) // count - 3)
    width = min(max(longest, NARROWEST, *map(len, feet)), widest)
    return "\n".join(_lines(courses, feet, width))


def _lines(courses: Sequence[Sequence[str]], feet: Sequence[str], width: int) -> Iterator[str]:
    count = len(feet)
    whole = count * (width + 3) - 3
    bricks = [1, *map(len, courses), 1]
    joints = [JOINTS[above > 1, below > 1] for above, below in pairwise(bricks)]
    first, *rules, last = [joint.join(["─" * (width + 2)] * count) for joint in joints]
    yield f"{'image':^{whole + 4}}".rstrip()
    yield f"┌{first}┐"
    for row, rule in zip_longest(courses, rules):
        yield from _course(row, whole if len(row) == 1 else width)
        yield f"├{rule}┤" if rule else f"└{last}┘"
    yield "  " + "   ".join(f"{foot:<{width}}" for foot in feet).rstrip()


def _course(texts: Sequence[str], width: int) -> Iterator[str]:
    """As many lines as the longest text needs."""
    for line in zip_longest(*(wrap(text, width) for text in texts), fillvalue=""):
        yield f"│ {' │ '.join(f'{part:<{width}}' for part in line)} │"

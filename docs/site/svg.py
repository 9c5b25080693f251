"""SVG figures whose colors are set by the style sheet of the site, for light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from textwrap import wrap

WIDTH, GAP, LINE_HEIGHT, LETTER_WIDTH = 720, 4, 17, 7.6
"""Width of a sharing diagram, gap between blocks, height of a text line, width of a letter; px."""

Point = tuple[float, float]
"""(x, y)."""


def _wrap_svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    box = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px"'
    inside = "".join(parts)
    return f'<svg class="figure" {box} role="img" aria-label="{escape(label)}">{inside}</svg>'


def draw_sharing_diagram(rows: Sequence[Sequence[str]], labels: Sequence[str], label: str) -> str:
    """Draw a sharing diagram, from the image at the top to the tasks.

    Args:
        rows: rows of blocks, as in `SharingStructure`.
        labels: label of each column.
        label: description for screen readers.

    Returns:
        An SVG element.
    """
    top, parts = 0.0, []
    for row in (["image"], *rows, labels):
        height, blocks = _draw_row(row, top, len(labels), row is labels)
        parts.append(blocks)
        top += height + GAP
    return _wrap_svg(WIDTH, top, parts, label)


def _draw_row(
    row: Sequence[str], top: float, columns: int, is_label_row: bool
) -> tuple[float, str]:
    width = (WIDTH - GAP * (len(row) - 1)) / len(row)
    lines = [wrap(text, int(width / LETTER_WIDTH) - 2) for text in row]
    height = max(map(len, lines)) * LINE_HEIGHT + 12
    blocks = "".join(
        _draw_block(
            text,
            (index * (width + GAP), top),
            (width, height),
            _get_css_class(row, index, columns, is_label_row),
        )
        for index, text in enumerate(lines)
    )
    return height, blocks


def _get_css_class(row: Sequence[str], index: int, columns: int, is_label_row: bool) -> str:
    if is_label_row:
        return "outside"
    first = row[0].partition(":")[0] if len(row) == 1 else ""
    css_class = {"image": "outside", "shared": "shared", "fusion": "fusion"}.get(first)
    return css_class or f"task task{index % 6}"


def _draw_block(lines: Sequence[str], corner: Point, size: Point, css_class: str) -> str:
    (x, y), (width, height) = corner, size
    middle = x + width / 2
    if not lines:
        return f'<path class="pass" d="M{middle:.1f} {y:.1f}v{height:.1f}"/>'
    start = y + height / 2 - (len(lines) - 1) * LINE_HEIGHT / 2 + 4
    words = "".join(
        f'<text x="{middle:.1f}" y="{start + number * LINE_HEIGHT:.1f}">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="4"'
    return f'<g class="{css_class}"><rect {box}/>{words}</g>'


def draw_curves(series: Mapping[str, Sequence[float]], max_value: float, label: str) -> str:
    """Draw curves over steps.

    Args:
        series: {name: values}, all of the same length.
        max_value: upper end of the vertical axis, which starts at 0.
        label: description for screen readers.

    Returns:
        An SVG element.
    """
    width, height, left, right, foot = 560, 210, 44, 110, 26
    inner = (width - left - right, height - foot - 10)

    def format_point(step: int, count: int, value: float) -> str:
        x = left + inner[0] * step / (count - 1)
        return f"{x:.1f},{10 + inner[1] * (1 - min(value / max_value, 1)):.1f}"

    bottom = 10 + inner[1]
    frame = f'<path class="axis" d="M{left} 10V{bottom}H{left + inner[0]}"/>'
    ticks = [
        f'<text class="tick end" x="{left - 6}" y="{14 + inner[1] * (1 - part):.1f}">'
        f"{part * max_value:.3g}</text>"
        for part in (0, 0.5, 1)
    ]
    ends = [f'<text class="tick" x="{left + inner[0] / 2:.0f}" y="{height - 6}">steps</text>']
    lines = [
        f'<polyline class="line task{index}" points="'
        + " ".join(format_point(step, len(values), value) for step, value in enumerate(values))
        + '"/>'
        for index, values in enumerate(series.values())
    ]
    names = [
        f'<g class="task{index}"><text class="name" x="{left + inner[0] + 8}" '
        f'y="{30 + 22 * index}">{escape(name)}</text></g>'
        for index, name in enumerate(series)
    ]
    return _wrap_svg(width, height, [frame, *ticks, *ends, *lines, *names], label)


def draw_arrows(vectors: Sequence[tuple[str, str, Point]], label: str) -> str:
    """Draw vectors from a common origin; the y axis points upward.

    Args:
        vectors: (name, CSS class, (x, y)) of each vector.
        label: description for screen readers.

    Returns:
        An SVG element.
    """
    return _wrap_svg(440, 175, list(_iter_arrows(vectors, (130.0, 160.0), 120.0)), label)


def _iter_arrows(
    vectors: Sequence[tuple[str, str, Point]], origin: Point, unit: float
) -> Iterator[str]:
    for name, kind, (right, up) in vectors:
        length = max((right**2 + up**2) ** 0.5, 1e-9)
        x, y = origin[0] + unit * right, origin[1] - unit * up
        along, across = (right / length, -up / length), (up / length, right / length)
        base = (x - 11 * along[0], y - 11 * along[1])
        head = " ".join(
            f"{px:.1f},{py:.1f}"
            for px, py in (
                (x, y),
                (base[0] + 4.5 * across[0], base[1] + 4.5 * across[1]),
                (base[0] - 4.5 * across[0], base[1] - 4.5 * across[1]),
            )
        )
        beyond = (x + 16 * along[0], y + 12 * along[1] + 4)
        yield (
            f'<g class="arrow {kind}"><path d="M{origin[0]:.1f} {origin[1]:.1f}'
            f'L{base[0]:.1f} {base[1]:.1f}"/><polygon points="{head}"/>'
            f'<text class="name" x="{beyond[0]:.1f}" y="{beyond[1]:.1f}">{escape(name)}</text></g>'
        )

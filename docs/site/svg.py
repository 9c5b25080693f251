"""Small drawings, coloured by the site's style sheet so that they suit light and dark pages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from textwrap import wrap

WIDTH, GAP, LINE_HEIGHT, LETTER_WIDTH = 720, 4, 17, 7.6
"""Of a wall, its joints, a line of text and a letter, in pixels."""

Point = tuple[float, float]


def _wrap_svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    box = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width:g}px"'
    inside = "".join(parts)
    return f'<svg class="figure" {box} role="img" aria-label="{escape(label)}">{inside}</svg>'


def draw_sharing_diagram(rows: Sequence[Sequence[str]], labels: Sequence[str], label: str) -> str:
    """Bricks from the image down to the tasks; `rows` and `labels` as in `Structure`."""
    top, parts = 0.0, []
    for row in (["image"], *rows, labels):
        height, bricks = _draw_row(row, top, len(labels), row is labels)
        parts.append(bricks)
        top += height + GAP
    return _wrap_svg(WIDTH, top, parts, label)


def _draw_row(
    row: Sequence[str], top: float, columns: int, is_label_row: bool
) -> tuple[float, str]:
    width = (WIDTH - GAP * (len(row) - 1)) / len(row)
    lines = [wrap(text, int(width / LETTER_WIDTH) - 2) for text in row]
    height = max(map(len, lines)) * LINE_HEIGHT + 12
    bricks = "".join(
        _draw_block(
            text,
            (index * (width + GAP), top),
            (width, height),
            _get_css_class(row, index, columns, is_label_row),
        )
        for index, text in enumerate(lines)
    )
    return height, bricks


def _get_css_class(row: Sequence[str], index: int, columns: int, is_label_row: bool) -> str:
    if is_label_row:
        return "outside"
    first = row[0].partition(":")[0] if len(row) == 1 else ""
    spanning = {"image": "outside", "shared": "shared", "fusion": "fusion"}.get(first)
    return spanning or f"task task{index % 6}"


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
    """Lines over the same steps, from 0 to `max_value`."""
    width, height, left, right, foot = 560, 210, 44, 110, 26
    inner = (width - left - right, height - foot - 10)

    def place(step: int, count: int, value: float) -> str:
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
        + " ".join(place(step, len(values), value) for step, value in enumerate(values))
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
    """Vectors (name, kind, x and y) from one origin, the y axis upwards."""
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

"""LaTeX as MathML, which browsers draw themselves: no script, no fonts, no network."""

from __future__ import annotations

import html
import logging
import re

from latex2mathml.converter import convert

log = logging.getLogger("mkdocs.plugins.densemtl")

FORMULA = re.compile(r"<(span|div) class=\"arithmatex\">(.*?)</\1>", re.DOTALL)


def render_formulas(page: str) -> str:
    r"""Replace what arithmatex has marked, `\(..\)` in a line and `\[..\]` on its own."""

    def draw(match: re.Match[str]) -> str:
        latex = html.unescape(match[2]).strip()[2:-2].strip()
        alone = match[1] == "div"
        drawn = convert(latex, display="block" if alone else "inline")
        if "\\" in drawn:
            log.warning("a formula is not understood: %s", latex)
        return f'<div class="formula">{drawn}</div>' if alone else drawn

    return FORMULA.sub(draw, page)

"""Conversion of LaTeX to MathML, which browsers render without scripts, fonts or a network."""

from __future__ import annotations

import html
import logging
import re

from latex2mathml.converter import convert

log = logging.getLogger("mkdocs.plugins.densemtl")

FORMULA = re.compile(r"<(span|div) class=\"arithmatex\">(.*?)</\1>", re.DOTALL)


def render_formulas(page: str) -> str:
    r"""Convert the formulas that arithmatex has marked: inline `\(..\)` and display `\[..\]`."""

    def render(match: re.Match[str]) -> str:
        latex = html.unescape(match[2]).strip()[2:-2].strip()
        is_block = match[1] == "div"
        mathml = convert(latex, display="block" if is_block else "inline")
        if "\\" in mathml:
            log.warning("cannot convert a formula to MathML: %s", latex)
        return f'<div class="formula">{mathml}</div>' if is_block else mathml

    return FORMULA.sub(render, page)

"""MkDocs hooks: pages that the code tells, pages from elsewhere, mathematics, a last look."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import configuration
import links
import maths
import methods
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]

EXTERNAL_RESOURCE = re.compile(
    r"<(?:script|img|iframe)[^>]*?src=\"?https?:"
    r"|<link[^>]*rel=\"?(?:stylesheet|preload|preconnect)[^>]*https?:"
)
"""What a browser would load from elsewhere."""

log = logging.getLogger("mkdocs.plugins.densemtl")


def on_config(config: Any) -> Any:
    """Put the methods' pages into the navigation."""
    config["nav"] = _expand_nav(config["nav"])
    return config


def _expand_nav(nav: Any) -> Any:
    if isinstance(nav, list):
        lists = [
            _expand_pattern(each) if isinstance(each, str) else [_expand_nav(each)] for each in nav
        ]
        return [each for some in lists for each in some]
    if isinstance(nav, dict):
        return {title: _expand_nav(below) for title, below in nav.items()}
    pages = _expand_pattern(nav)
    return pages if len(pages) > 1 else nav


def _expand_pattern(pattern: str) -> list[Any]:
    package, star, _ = pattern.partition("/*")
    if not star:
        return [pattern]
    return [{name: methods.get_page_uri(package, name)} for name in methods.list_methods(package)]


def on_files(files: Files, config: Any) -> Files:
    """Add what is made, and what lies outside docs/."""
    for uri, text in {**methods.make_pages(), **configuration.make_pages()}.items():
        files.append(File.generated(config, uri, content=text))
    for source, uri in links.EXTERNAL_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links point into the site."""
    return links.rewrite_links(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Write formulas as MathML."""
    return maths.render_formulas(html)


def on_post_build(config: Any) -> None:
    """Warn of pages that would not be whole without a network."""
    for file in sorted(Path(config["site_dir"]).rglob("*.html")):
        if EXTERNAL_RESOURCE.search(file.read_text(encoding="utf-8")):
            log.warning("%s loads something from elsewhere", file)

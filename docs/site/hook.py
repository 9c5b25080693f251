"""MkDocs hooks: generated pages, pages from outside docs/, formulas, check of the output."""

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
"""HTML elements that load files from other servers."""

log = logging.getLogger("mkdocs.plugins.densemtl")


def on_config(config: Any) -> Any:
    """Add the pages of decoders and balancing methods to the navigation."""
    config["nav"] = _expand_nav(config["nav"])
    return config


def _expand_nav(nav: Any) -> Any:
    if isinstance(nav, list):
        lists = [
            _expand_pattern(item) if isinstance(item, str) else [_expand_nav(item)] for item in nav
        ]
        return [item for items in lists for item in items]
    if isinstance(nav, dict):
        return {title: _expand_nav(child) for title, child in nav.items()}
    pages = _expand_pattern(nav)
    return pages if len(pages) > 1 else nav


def _expand_pattern(pattern: str) -> list[Any]:
    package, star, _ = pattern.partition("/*")
    if not star:
        return [pattern]
    return [{name: methods.get_page_uri(package, name)} for name in methods.list_methods(package)]


def on_files(files: Files, config: Any) -> Files:
    """Add generated pages, and pages whose source is outside docs/."""
    for uri, text in {**methods.make_pages(), **configuration.make_pages()}.items():
        files.append(File.generated(config, uri, content=text))
    for source, uri in links.EXTERNAL_PAGES.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite links between files of the repository as links between pages."""
    return links.rewrite_links(markdown, page.file.src_uri)


def on_page_content(html: str, **_: Any) -> str:
    """Convert formulas to MathML."""
    return maths.render_formulas(html)


def on_post_build(config: Any) -> None:
    """Warn about pages that load files from other servers."""
    for file in sorted(Path(config["site_dir"]).rglob("*.html")):
        if EXTERNAL_RESOURCE.search(file.read_text(encoding="utf-8")):
            log.warning("%s loads a file from another server", file)

"""Rendering of terminal tables as text."""

from __future__ import annotations

import io

from rich.console import Console, Group


def render(table: Group) -> str:
    """Return what the terminal shows, 120 columns wide."""
    text = io.StringIO()
    Console(file=text, width=120).print(table)
    return text.getvalue()

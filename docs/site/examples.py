"""Griffe extension: sections `Example:` of docstrings are shown as code."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension, Object

SECTION = re.compile(r"^( *)Example:$", re.MULTILINE)
"""Title of a section with an example, which griffe knows as `Examples:` only."""


class ExampleSections(Extension):  # type: ignore[misc, unused-ignore] # griffe may be missing
    """Rename the sections before the docstrings are parsed."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rename the section of one object."""
        if obj.docstring:
            obj.docstring.value = SECTION.sub(r"\1Examples:", obj.docstring.value)

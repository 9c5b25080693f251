"""YAML files to one plain mapping: single inheritance by `base:`, then overrides; nothing is run.

Numbers follow YAML 1.2 (PyYAML alone reads 1e-4 as a string). Every value remembers the file it
came from, so that an error can say where to look.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from densemtl.errors import ConfigError

COMMAND_LINE = "command line"
ROOT = ""
NAMED_ALIKE = ("optim", "schedule")
"""Sections that have the same keys whatever their `name` is, and keep them when it changes."""

Origins = dict[str, str]
"""{dotted path: file that set it}; at `ROOT` the file that was asked for."""


MAX_VALUES, MAX_DEPTH = 100_000, 50
"""Of a file, aliases written out: a few lines of them may otherwise stand for billions of values,
or for a value inside itself."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads floats as YAML 1.2 does, and refuses bombs and keys given twice."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(f"line {node.start_mark.line + 1}: {twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, counted: dict[int, int], depth: int) -> int:
    """How many values there are in a node; a node that is met again is not gone through again."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"line {node.start_mark.line + 1}: more than {MAX_DEPTH} levels deep")
    if id(node) in counted:
        return counted[id(node)]
    inside = [] if isinstance(node, yaml.ScalarNode) else node.value
    parts = chain.from_iterable(inside) if isinstance(node, yaml.MappingNode) else inside
    count = 1 + sum(_count(part, counted, depth + 1) for part in parts)
    if count > MAX_VALUES:
        raise ConfigError(f"line {node.start_mark.line + 1}: more than {MAX_VALUES} values")
    counted[id(node)] = count
    return count


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class Document:
    """A merged configuration and where each of its values came from."""

    values: dict[str, Any]
    origins: Origins = field(default_factory=dict)

    def origin(self, path: str) -> str:
        """The file that set a path or its nearest ancestor, else the file that was asked for."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            found = self.origins.get(".".join(parts[:end]))
            if found:
                return found
        return self.origins.get(ROOT, COMMAND_LINE)


def load(file: Path, overrides: Sequence[str] = ()) -> Document:
    """Read a file, its bases, and `a.b=value` overrides.

    Raises:
        ConfigError: a missing or malformed file, a circle of bases, a malformed override.
    """
    return _overridden(_load_with_bases(file, ()), overrides)


def override(values: dict[str, Any], overrides: Sequence[str], source: str) -> Document:
    """A configuration that was saved whole, with `a.b=value` overrides.

    Raises:
        ConfigError: a malformed override.
    """
    return _overridden(_merge(Document({}), values, source), overrides)


def _overridden(document: Document, overrides: Sequence[str]) -> Document:
    """Overrides are merged with each other first, so that their order does not matter."""
    asked = Document({})
    for text in overrides:
        asked = _merge(asked, parse_override(text), COMMAND_LINE)
    return _merge(document, asked.values, COMMAND_LINE)


def _load_with_bases(file: Path, below: tuple[Path, ...]) -> Document:
    file = Path(file)
    values = read_yaml(file)
    if file.resolve() in below:
        raise ConfigError(f"{file}: base leads back to itself")
    base = values.pop("base", None)
    if base is None:
        return _merge(Document({}), values, str(file))
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base: give the name of one file, not {base!r}")
    parent = _load_with_bases(file.parent / base, (*below, file.resolve()))
    return _merge(parent, values, str(file))


def read_yaml(file: Path) -> dict[str, Any]:
    """A YAML file that holds one mapping with text keys."""
    return parse_yaml(read_text(file), str(file))


def read_text(file: Path) -> str:
    """A UTF-8 text file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: cannot be read: not a UTF-8 text file") from error
    except (OSError, ValueError) as error:  # of impossible names, such as those with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file}: cannot be read: {reason}") from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """The mapping in a YAML text, which is named by its source in errors.

    Raises:
        ConfigError: malformed, no mapping, too large, or keys that are no text.
    """
    try:
        values = _parse(text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: must hold keys and values, not a {type(values).__name__}")
    return values


def parse_override(text: str) -> dict[str, Any]:
    """`optim.lr=2e-5` -> {"optim": {"lr": 2e-5}}; the value is YAML."""
    path, sign, value = text.partition("=")
    parts = path.strip().split(".")
    if not sign or not all(parts):
        raise ConfigError(f"{COMMAND_LINE}: {text!r} is not of the form key.key=value")
    try:
        nested: Any = _parse(value)
    except ConfigError as error:
        raise ConfigError(f"{COMMAND_LINE}: {path}: {error}") from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _parse(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except ConfigError:
        raise
    except Exception as error:  # PyYAML's constructors let through whatever Python raises
        reason = shorten(str(error) or type(error).__name__, 300)
        raise ConfigError(f"not valid YAML: {reason}") from error


def _merge(below: Document, values: dict[Any, Any], source: str) -> Document:
    merged, origins = dict(below.values), dict(below.origins)
    if source != COMMAND_LINE:
        origins[ROOT] = source
    _merge_into(merged, values, source, "", origins)
    return Document(merged, origins)


def _merge_into(
    target: dict[str, Any], values: dict[Any, Any], source: str, prefix: str, origins: Origins
) -> None:
    for key, value in values.items():
        path, old = f"{prefix}{key}", target.get(key)
        if not isinstance(value, dict) or not isinstance(old, dict) or _renames(path, old, value):
            old = {}
            for stale in [below for below in origins if below.startswith(f"{path}.")]:
                del origins[stale]
            origins[path] = source
        if isinstance(value, dict):
            target[key] = dict(old)
            _merge_into(target[key], value, source, f"{path}.", origins)
        else:
            target[key] = value


def _renames(path: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """A component under a new name starts afresh: the old one's options are not its own."""
    named = path not in NAMED_ALIKE and "name" in old and "name" in new
    return named and new["name"] != old["name"]

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
SHARED_KEY_SECTIONS = ("optim", "schedule")
"""Sections that have the same keys whatever their `name` is, and keep them when it changes."""

Sources = dict[str, str]
"""{dotted path: file that set it}; at `ROOT` the file that was asked for."""


MAX_VALUES, MAX_DEPTH = 100_000, 50
"""Of a file, aliases written out: a few lines of them may otherwise stand for billions of values,
or for a value inside itself."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader that reads floats as YAML 1.2 does, and refuses bombs and keys given twice."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = sorted({str(key) for key in keys if keys.count(key) > 1})
        if twice:
            raise ConfigError(f"line {node.start_mark.line + 1}: {twice[0]!r} is given twice")
        return super().construct_mapping(node, deep)


def _count_values(node: yaml.Node, counts_by_id: dict[int, int], depth: int) -> int:
    """How many values there are in a node; a node that is met again is not gone through again."""
    if depth > MAX_DEPTH:
        raise ConfigError(f"line {node.start_mark.line + 1}: more than {MAX_DEPTH} levels deep")
    if id(node) in counts_by_id:
        return counts_by_id[id(node)]
    inside = [] if isinstance(node, yaml.ScalarNode) else node.value
    parts = chain.from_iterable(inside) if isinstance(node, yaml.MappingNode) else inside
    count = 1 + sum(_count_values(part, counts_by_id, depth + 1) for part in parts)
    if count > MAX_VALUES:
        raise ConfigError(f"line {node.start_mark.line + 1}: more than {MAX_VALUES} values")
    counts_by_id[id(node)] = count
    return count


_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class MergedConfig:
    """A merged configuration and where each of its values came from."""

    values: dict[str, Any]
    sources: Sources = field(default_factory=dict)

    def find_source(self, path: str) -> str:
        """The file that set a path or its nearest ancestor, else the file that was asked for."""
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            source = self.sources.get(".".join(parts[:end]))
            if source:
                return source
        return self.sources.get(ROOT, COMMAND_LINE)


def load_config(file: Path, overrides: Sequence[str] = ()) -> MergedConfig:
    """Read a file, its bases, and `a.b=value` overrides.

    Raises:
        ConfigError: a missing or malformed file, a circle of bases, a malformed override.
    """
    return _merge_overrides(_load_with_bases(file, ()), overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str], source: str) -> MergedConfig:
    """A configuration that was saved whole, with `a.b=value` overrides.

    Raises:
        ConfigError: a malformed override.
    """
    return _merge_overrides(_merge(MergedConfig({}), values, source), overrides)


def _merge_overrides(base: MergedConfig, overrides: Sequence[str]) -> MergedConfig:
    """Overrides are merged with each other first, so that their order does not matter."""
    asked = MergedConfig({})
    for text in overrides:
        asked = _merge(asked, parse_override(text), COMMAND_LINE)
    return _merge(base, asked.values, COMMAND_LINE)


def _load_with_bases(file: Path, descendants: tuple[Path, ...]) -> MergedConfig:
    file = Path(file)
    values = read_yaml(file)
    if file.resolve() in descendants:
        raise ConfigError(f"{file}: base leads back to itself")
    base = values.pop("base", None)
    if base is None:
        return _merge(MergedConfig({}), values, str(file))
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base: give the name of one file, not {base!r}")
    parent = _load_with_bases(file.parent / base, (*descendants, file.resolve()))
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
        values = _parse_yaml_value(text)
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
        nested: Any = _parse_yaml_value(value)
    except ConfigError as error:
        raise ConfigError(f"{COMMAND_LINE}: {path}: {error}") from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _parse_yaml_value(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except ConfigError:
        raise
    except Exception as error:  # PyYAML's constructors let through whatever Python raises
        reason = shorten(str(error) or type(error).__name__, 300)
        raise ConfigError(f"not valid YAML: {reason}") from error


def _merge(base: MergedConfig, values: dict[Any, Any], source: str) -> MergedConfig:
    merged, origins = dict(base.values), dict(base.sources)
    if source != COMMAND_LINE:
        origins[ROOT] = source
    _merge_into(merged, values, source, "", origins)
    return MergedConfig(merged, origins)


def _merge_into(
    target: dict[str, Any], values: dict[Any, Any], source: str, prefix: str, sources: Sources
) -> None:
    for key, value in values.items():
        path, old = f"{prefix}{key}", target.get(key)
        if (
            not isinstance(value, dict)
            or not isinstance(old, dict)
            or _is_component_change(path, old, value)
        ):
            old = {}
            for stale in [below for below in sources if below.startswith(f"{path}.")]:
                del sources[stale]
            sources[path] = source
        if isinstance(value, dict):
            target[key] = dict(old)
            _merge_into(target[key], value, source, f"{path}.", sources)
        else:
            target[key] = value


def _is_component_change(path: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """A component under a new name starts afresh: the old one's options are not its own."""
    named = path not in SHARED_KEY_SECTIONS and "name" in old and "name" in new
    return named and new["name"] != old["name"]

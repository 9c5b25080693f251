"""Loading of YAML configuration files with inheritance (`base:`) and overrides.

Files contain plain values only; tags that construct Python objects are errors. Numbers follow YAML
1.2, as PyYAML alone reads 1e-4 as a string. The source of every value is recorded, so that error
messages can name the file.

Example:
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "base.yaml").write_text("optim: {name: adam, lr: 1e-3}")
    ...     _ = Path(folder, "run.yaml").write_text("base: base.yaml")
    ...     config = load_config(Path(folder, "run.yaml"), ["optim.lr=2e-4"])
    >>> config.values
    {'optim': {'name': 'adam', 'lr': 0.0002}}
    >>> config.find_source("optim.lr")
    'command line'
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from densemtl.config.input_paths import check_config_file
from densemtl.config.shipped_configs import find_config
from densemtl.errors import ConfigError, DataError
from densemtl.io.bounded import MAX_TEXT_BYTES, read_bytes

COMMAND_LINE = "command line"
"""Source of overrides in error messages."""

ROOT = ""
"""Path of the whole configuration in `Sources`."""

SHARED_KEY_SECTIONS = ("optim", "schedule")
"""Sections whose keys do not depend on `name`, and are therefore kept when the name changes."""

Sources = dict[str, str]
"""{dotted path: file that set the value}; `ROOT` has the file that was loaded."""


MAX_VALUES, MAX_DEPTH = 100_000, 50
"""Limits on the number of values of a file and on their nesting, after the expansion of aliases. A
few lines with aliases can otherwise expand to billions of values or to an infinite recursion."""


MAX_INT_BITS = 1024
"""Maximum size of integers. Python cannot print much longer ones in error messages."""

MAX_CHARACTERS = 200_000
"""Limit on the length of a text. PyYAML needs up to 0.1 ms per character."""


YAML_ERRORS = {
    "could not determine a constructor": "tags (!..) are not allowed",
    "'\\t'": "a tab; indent by spaces",
    "mapping values are not allowed": "an unexpected colon; put texts that contain one in quotes",
    "<stream end>": "a bracket is not closed",
    "unexpected end of stream": "a quote is not closed",
    "expected <block end>": "wrong indentation, or a text that must be in quotes",
    "found undefined alias": "an alias (*name) without an anchor (&name); put texts in quotes",
    "cannot start any token": "a text that must be in quotes",
    "expected '<document start>'": "wrong indentation",
    "could not find expected ':'": "a key without a colon",
    "unhashable key": "an unhashable key; a key must be a text or a number",
}
"""{part of a message of PyYAML: explanation}; the position is added."""


class _StrictLoader(yaml.SafeLoader):
    """SafeLoader with floats of YAML 1.2 that rejects duplicate keys and too large values."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None:
            _count_values(node, {}, 0)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        counts = Counter(key for key in keys if isinstance(key, Hashable))
        duplicates = sorted(str(key) for key, count in counts.items() if count > 1)
        if duplicates:
            raise ConfigError(f"line {node.start_mark.line + 1}: duplicate key {duplicates[0]!r}")
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        value = super().construct_yaml_int(node)
        if value.bit_length() > MAX_INT_BITS:
            raise ConfigError(f"line {node.start_mark.line + 1}: integer of more than 300 digits")
        return value


def _count_values(node: yaml.Node, counts_by_id: dict[int, int], depth: int) -> int:
    """Count the values in a node; each node is traversed only once."""
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


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.construct_yaml_int)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?$"),
    list("-+0123456789."),
)


@dataclass(frozen=True)
class MergedConfig:
    """Merged configuration with the source of each value.

    Attributes:
        values: nested dictionaries.
        sources: {dotted path: file that set the value}.
    """

    values: dict[str, Any]
    sources: Sources = field(default_factory=dict)

    def find_source(self, path: str) -> str:
        """Return the source of a value.

        Args:
            path: dotted path of the value.

        Returns:
            The file that set the value or the closest section around it, or else the loaded file.
        """
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            source = self.sources.get(".".join(parts[:end]))
            if source:
                return source
        return self.sources.get(ROOT, COMMAND_LINE)


def load_config(file: Path, overrides: Sequence[str] = ()) -> MergedConfig:
    """Load a configuration file, merge it into its base files, and apply overrides.

    Args:
        file: YAML file, or name of a shipped configuration, see `find_config`; `base` names a file
            to inherit from, relative to this file, or a shipped configuration.
        overrides: changes of values, `key.key=value`.

    Returns:
        The merged configuration, which is not validated.

    Raises:
        ConfigError: if a file is missing or malformed, bases form a cycle, or an override is
            malformed.
    """
    return _merge_overrides(_load_with_bases(find_config(Path(file)), ()), overrides)


def apply_overrides(values: dict[str, Any], overrides: Sequence[str], source: str) -> MergedConfig:
    """Apply overrides to a complete configuration.

    Args:
        values: nested dictionaries without `base`.
        overrides: changes of values, `key.key=value`.
        source: file of the values, for error messages.

    Returns:
        The merged configuration, which is not validated.

    Raises:
        ConfigError: if an override is malformed.
    """
    return _merge_overrides(_merge(MergedConfig({}), values, source), overrides)


def _merge_overrides(base: MergedConfig, overrides: Sequence[str]) -> MergedConfig:
    """Merge the overrides with each other first, so that their order does not matter."""
    merged = MergedConfig({})
    for text in overrides:
        merged = _merge(merged, parse_override(text), COMMAND_LINE)
    return _merge(base, merged.values, COMMAND_LINE)


def _load_with_bases(file: Path, descendants: tuple[Path, ...]) -> MergedConfig:
    values = read_yaml(file)
    if file.resolve() in descendants:
        raise ConfigError(f"{file}: base: the files inherit from each other in a cycle")
    base = values.pop("base", None)
    if base is None:
        return _merge(MergedConfig({}), values, str(file))
    if not isinstance(base, str):
        raise ConfigError(f"{file}: base: must be the name of one file, not {base!r}")
    parent = _load_with_bases(find_config(Path(base), file.parent), (*descendants, file.resolve()))
    return _merge(parent, values, str(file))


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a YAML file that contains one mapping.

    Args:
        file: YAML file.

    Returns:
        {key: value}; empty for an empty file.

    Raises:
        ConfigError: if the file cannot be read, is malformed, no mapping, or too large.
    """
    check_config_file(file)
    return parse_yaml(read_text(file), str(file))


def read_text(file: Path) -> str:
    """Read a UTF-8 text file.

    Args:
        file: text file.

    Returns:
        The content.

    Raises:
        ConfigError: if the file cannot be read.
    """
    try:
        return read_bytes(file, MAX_TEXT_BYTES).decode("utf-8")
    except DataError as error:
        raise ConfigError(str(error)) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: cannot be read: not a UTF-8 text file") from error
    except (OSError, ValueError) as error:  # ValueError: invalid name, e.g. with a null byte
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{file}: cannot be read: {reason}") from error


def parse_yaml(text: str, source: str) -> dict[str, Any]:
    """Parse a YAML text that contains one mapping.

    Args:
        text: YAML text.
        source: file of the text, for error messages.

    Returns:
        {key: value}; empty for an empty text.

    Raises:
        ConfigError: if the text is malformed, no mapping, or too large.

    Example:
        >>> parse_yaml("optim: {lr: 1e-4}", "run.yaml")
        {'optim': {'lr': 0.0001}}
    """
    try:
        values = _parse_yaml_value(text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: must contain keys and values, not a {type(values).__name__}")
    return values


def parse_override(text: str) -> dict[str, Any]:
    """Parse an override.

    Args:
        text: `key.key=value`; the value is YAML.

    Returns:
        Nested dictionaries with a single value.

    Raises:
        ConfigError: if the override is malformed.

    Example:
        >>> parse_override("optim.lr=2e-5")
        {'optim': {'lr': 2e-05}}
    """
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
    if len(text) > MAX_CHARACTERS:
        raise ConfigError(f"more than {MAX_CHARACTERS} characters; a configuration is shorter")
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except ConfigError:
        raise
    except yaml.MarkedYAMLError as error:
        raise ConfigError(f"not valid YAML{_explain_yaml_error(error)}") from error
    except yaml.reader.ReaderError as error:
        raise ConfigError(
            f"not valid YAML: a control character (#x{error.character:04x})"
        ) from error
    except Exception as error:  # constructors of PyYAML may raise any exception
        reason = shorten(str(error) or type(error).__name__, 300)
        raise ConfigError(f"not valid YAML: {reason}") from error


def _explain_yaml_error(error: yaml.MarkedYAMLError) -> str:
    """Return the position and, in plain words, the reason of a YAML error."""
    mark = error.problem_mark or error.context_mark
    place = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    text = " ".join((error.problem or error.context or "").split())
    for part, explanation in YAML_ERRORS.items():
        if part in text:
            return f"{place}: {explanation}"
    return f"{place}: {shorten(text, 200)}"


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
    """Return whether a component is replaced by another one, whose options differ."""
    has_names = path not in SHARED_KEY_SECTIONS and "name" in old and "name" in new
    return has_names and new["name"] != old["name"]

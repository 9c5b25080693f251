"""Parsing of YAML texts and files, which may come from another source.

Texts contain plain values only; tags that construct Python objects are errors. Numbers follow YAML
1.2, as PyYAML alone reads 1e-4 as a string. The size is limited, and messages are plain.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from densemtl.config.input_paths import check_config_file
from densemtl.errors import ConfigError, DataError
from densemtl.io.bounded import MAX_TEXT_BYTES, read_bytes

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


def parse_value(text: str) -> Any:
    """Parse a YAML text.

    Args:
        text: a document, or the value of an override.

    Returns:
        The value: a mapping, list, text, number, boolean or None.

    Raises:
        ConfigError: if the text is malformed or too large, or repeats a key.
    """
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
        values = parse_value(text)
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ConfigError(f"{source}: must contain keys and values, not a {type(values).__name__}")
    return values

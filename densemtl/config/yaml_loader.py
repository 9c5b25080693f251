"""Loading of YAML configuration files with inheritance (`base:`) and overrides.

The source of every value is recorded, so that error messages can name the file.

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

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import Any

import yaml

from densemtl.config.data_sets import SETS, name_sets
from densemtl.config.shipped_configs import find_config
from densemtl.config.yaml_text import parse_value, read_yaml
from densemtl.errors import ConfigError, suggest

COMMAND_LINE = "command line"
"""Source of overrides in error messages."""

ROOT = ""
"""Path of the whole configuration in `Sources`."""

SHARED_KEY_SECTIONS = ("optim", "schedule")
"""Sections whose keys do not depend on `name`, and are therefore kept when the name changes."""

EXCLUSIVE_KEYS = {"train.epochs": "train.steps", "train.steps": "train.epochs"}
"""{path: path of the inherited key that it replaces}; both in one file are an error later."""

Sources = dict[str, str]
"""{dotted path: file that set the value}; `ROOT` has the file that was loaded."""


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

    def find_error_source(self, error: str) -> str:
        """Return the source of the values that an error is about.

        Args:
            error: message that starts with the dotted path of a value or a section.

        Returns:
            The sources of those keys of the section that the message names, or else that of the
            path.
        """
        path, _, message = error.partition(": ")
        words = set(re.findall(r"\w+", message))
        named = {
            source: None
            for key, source in self.sources.items()
            if key.rpartition(".")[0] == path and key.rpartition(".")[2] in words
        }
        return " and ".join(named) or self.find_source(path)


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
    _check_changes("", base.values, merged.values, COMMAND_LINE)
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
    _check_changes("", parent.values, values, str(file))
    return _merge(parent, values, str(file))


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
        nested: Any = parse_value(value)
    except ConfigError as error:
        raise ConfigError(f"{COMMAND_LINE}: {path}: {error}") from error
    for part in reversed(parts):
        nested = {part: nested}
    return dict(nested)


def _merge(base: MergedConfig, values: dict[Any, Any], source: str) -> MergedConfig:
    if "data" in values:
        try:
            values = {**values, "data": name_sets(values["data"])}
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from error
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
        other = EXCLUSIVE_KEYS.get(path)
        if other and value is not None and sources.get(other) not in (None, source):
            target.pop(other.rpartition(".")[2], None)
            del sources[other]
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


def _check_changes(path: str, old: Any, new: dict[Any, Any], source: str) -> None:
    """Check that no change is below an item of a list, or of a set that does not exist."""
    if path and isinstance(old, dict) and _is_component_change(path, old, new):
        return
    for key, value in new.items():
        key_path = f"{path}.{key}" if path else str(key)
        is_index = isinstance(key, str) and re.fullmatch(r"-?\d+", key)
        if is_index and isinstance(old, list) and source == COMMAND_LINE:
            current = yaml.safe_dump(old, default_flow_style=True, width=math.inf).strip()
            raise ConfigError(
                f"{source}: {key_path}: a list can only be replaced as a whole:"
                f" {path}={shorten(current, 200)}"
            )
        if not isinstance(value, dict):
            continue
        is_known = not isinstance(old, dict) or key in old
        if path == f"data.{SETS}" and not is_known and "name" not in value:
            hint = suggest(str(key), old)
            raise ConfigError(
                f"{source}: {key_path}: no set {str(key)!r}, {hint}; a new set needs a name"
            )
        _check_changes(key_path, old.get(key) if isinstance(old, dict) else None, value, source)


def _is_component_change(path: str, old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Return whether a component is replaced by another one, whose options differ."""
    has_names = path not in SHARED_KEY_SECTIONS and "name" in old and "name" in new
    return has_names and new["name"] != old["name"]

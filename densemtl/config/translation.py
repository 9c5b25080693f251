"""Translation of configurations, results and weights that an older version saved.

The old names are in `densemtl.config.renamed_keys`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from densemtl.config.renamed_keys import RENAMED_KEYS, RENAMED_PARAMETERS, RENAMED_VALUES

T = TypeVar("T")

COMPONENTS = ("data", "backbone", "decoder", "head", "balancing")
"""Sections that contain a component."""

LISTS = {"tasks": "tasks", "auxiliary_tasks": "tasks", "trackers": "trackers", "metrics": "metrics"}
"""{key of a list of components: first part of its paths}."""

ABOUT = ("name", "kind", "metrics")
"""Keys of a component that are not options."""

Path = tuple[str, ...]
"""Keys from the root of a configuration to a value."""


class Rename(NamedTuple):
    """Old name in a configuration.

    Attributes:
        path: dotted path of the old name.
        message: error message with the new name.
    """

    path: str
    message: str


def translate_config(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Rename]]:
    """Replace old names of keys and values in a configuration.

    Args:
        values: a configuration, or some of its sections; types may be wrong.

    Returns:
        The configuration with new names, and the old names that it contained.
    """
    keys = {_split(path): new for path, new in RENAMED_KEYS.items()}
    options = {_split(path): renamed for path, renamed in RENAMED_VALUES.items()}
    translation = _Translation(keys, options, parents_are_new=False)
    return translation.mapping(values, (), ()), translation.renames


def restore_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """Replace names of keys and values by their oldest names.

    Hashes of configurations are computed from the oldest names, so that renaming does not change
    them.

    Args:
        values: a configuration with new names.

    Returns:
        The configuration with old names.
    """
    keys = {(*_split(path)[:-1], new): _split(path)[-1] for path, new in RENAMED_KEYS.items()}
    options = {_split(path): _inverse(renamed) for path, renamed in RENAMED_VALUES.items()}
    return _Translation(keys, options, parents_are_new=True).mapping(values, (), ())


def translate_fields(values: Any, table: Mapping[str, str]) -> Any:
    """Replace old names of fields in nested dictionaries.

    Args:
        values: content of a file.
        table: `RENAMED_RESULT_FIELDS` or `RENAMED_PROGRESS_FIELDS`.

    Returns:
        The content with new names; values that are no dictionary are returned unchanged.
    """
    if not isinstance(values, dict):
        return values
    keys = {_split(path): new for path, new in table.items()}
    return _Translation(keys, {}, components=False).mapping(values, (), ())


def translate_parameters(tensors: Mapping[str, T], decoder: str) -> dict[str, T]:
    """Replace old parameter names in a state dict.

    Args:
        tensors: {parameter name: tensor}.
        decoder: name of the decoder of the model.

    Returns:
        A state dict with new names.
    """
    return _with_prefixes(tensors, _prefixes(decoder))


def restore_parameters(tensors: Mapping[str, T], decoder: str) -> dict[str, T]:
    """Replace parameter names in a state dict by their oldest names.

    Hashes of weights are computed from the oldest names, so that renaming does not change them.

    Args:
        tensors: {parameter name: tensor} with new names.
        decoder: name of the decoder of the model.

    Returns:
        A state dict with old names.
    """
    return _with_prefixes(tensors, _inverse(_prefixes(decoder)))


class _Translation:
    """Recursive replacement of keys and values in nested dictionaries.

    Args:
        keys: {path: new last part of the path}.
        options: {path: {old value: new value}}.
        parents_are_new: whether paths consist of the names before the replacement, instead of those
            after it.
        components: whether the dictionaries contain components, whose names are part of paths.

    Attributes:
        renames: old names that were replaced so far.
    """

    def __init__(
        self,
        keys: Mapping[Path, str],
        options: Mapping[Path, Mapping[Any, Any]],
        *,
        parents_are_new: bool = False,
        components: bool = True,
    ) -> None:
        self.renames: list[Rename] = []
        self._keys, self._options = keys, options
        self._parents_are_new, self._components = parents_are_new, components

    def mapping(self, values: Mapping[Any, Any], path: Path, location: Path) -> dict[Any, Any]:
        """Translate a dictionary.

        Args:
            values: dictionary to translate.
            path: path of the dictionary in terms of `keys` and `options`.
            location: path of the dictionary in the file, including list indices.

        Returns:
            A translated copy.
        """
        return self._translated(values, lambda key: path, location)

    def _translated(
        self, values: Mapping[Any, Any], parent: Callable[[Any], Path], location: Path
    ) -> dict[Any, Any]:
        translated: dict[Any, Any] = {}
        for key, value in values.items():
            here, path = (*location, str(key)), (*parent(key), str(key))
            new = _look_up(self._keys, path)
            if new is not None:
                self.renames.append(Rename(".".join(here), f"renamed to {new!r}"))
                if new in values:
                    continue
                path = path if self._parents_are_new else (*path[:-1], new)
            translated[key if new is None else new] = self._value(value, path, here)
        return translated

    def _value(self, value: Any, path: Path, location: Path) -> Any:
        if isinstance(value, dict):
            if self._components and len(path) == 1 and path[0] in COMPONENTS:
                return self._component(value, path, location)
            return self.mapping(value, path, location)
        if isinstance(value, list | tuple):
            kind = LISTS.get(path[-1]) if self._components else None
            return [
                self._component(item, (kind,), (*location, str(index))) if kind else item
                for index, item in enumerate(value)
            ]
        return self._option(value, path, location)

    def _component(self, entry: Any, path: Path, location: Path) -> Any:
        """Translate a component: `name`, or {name: .., option: ..}."""
        if not isinstance(entry, dict):
            return self._option(entry, (*path, "name"), location)
        key_of_name = next((key for key in ("kind", "name") if entry.get(key)), "name")
        name = entry.get(key_of_name)
        if not self._parents_are_new:
            name = _replaced(self._options, (*path, key_of_name), name)
        inside = (*path, str(name))
        return self._translated(entry, lambda key: path if key in ABOUT else inside, location)

    def _option(self, value: Any, path: Path, location: Path) -> Any:
        new = _replaced(self._options, path, value)
        if new is not value:
            self.renames.append(Rename(".".join(location), f"{value!r} was renamed to {new!r}"))
        return new


def _replaced(options: Mapping[Path, Mapping[Any, Any]], path: Path, value: Any) -> Any:
    renamed = _look_up(options, path)
    is_renamed = renamed is not None and isinstance(value, str | bool | int) and value in renamed
    return renamed[value] if is_renamed and renamed is not None else value


def _look_up(table: Mapping[Path, T], path: Path) -> T | None:
    return next((value for pattern, value in table.items() if _matches(pattern, path)), None)


def _matches(pattern: Sequence[str], path: Sequence[str]) -> bool:
    pairs = zip(pattern, path, strict=False)
    return len(pattern) == len(path) and all(part in ("*", key) for part, key in pairs)


def _split(path: str) -> Path:
    return tuple(path.split("."))


def _inverse(table: Mapping[Any, Any]) -> dict[Any, Any]:
    return {new: old for old, new in table.items()}


def _prefixes(decoder: str) -> dict[str, str]:
    return {**RENAMED_PARAMETERS.get("*", {}), **RENAMED_PARAMETERS.get(decoder, {})}


def _with_prefixes(tensors: Mapping[str, T], prefixes: Mapping[str, str]) -> dict[str, T]:
    return {_with_prefix(name, prefixes): tensor for name, tensor in tensors.items()}


def _with_prefix(name: str, prefixes: Mapping[str, str]) -> str:
    old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
    return name if old is None else prefixes[old] + name.removeprefix(old)

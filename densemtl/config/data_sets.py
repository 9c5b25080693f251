"""Section `data` with several datasets, `data: {name: mixed, sets: .., weights: ..}`.

Each set is a dataset of its own, with its options next to `name`. Sets are a dictionary, so that a
value of one set can be changed on the command line (`data.sets.nyud.root=..`), or a list:

    sets: [{name: nyud, root: a}, {name: folder, alias: bsds, root: b, ..}]
    weights: [2, 1]

    sets: {nyud: {name: nyud, root: a}, bsds: {name: folder, root: b, ..}}
    weights: {nyud: 2, bsds: 1}

A list is converted to the dictionary when a configuration is loaded. This module imports no large
library, so that commands report a wrong path at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from densemtl.errors import ConfigError

MIXED = "mixed"
"""Name of the dataset that combines others."""

SETS, ALIAS = "sets", "alias"
"""Keys of the sets, and of the name of a set in a list."""

SET_KEYS = ("name", "tasks", "augment", "background")
"""Keys of a set that are not options of its dataset."""


def name_sets(data: Any) -> Any:
    """Convert lists of sets and weights to dictionaries.

    Args:
        data: the section `data`; types may be wrong.

    Returns:
        A section whose sets and weights are dictionaries, or the same section if it has no list.

    Raises:
        ConfigError: if two sets have the same name, or the numbers of sets and weights differ.
    """
    if not isinstance(data, Mapping) or data.get("name", MIXED) != MIXED:
        return data
    sets = data.get(SETS)
    if not isinstance(sets, list | tuple) or not all(isinstance(each, Mapping) for each in sets):
        return data
    named: dict[str, Any] = {}
    for index, each in enumerate(sets):
        alias = str(each.get(ALIAS, each.get("name", index)))
        if alias in named:
            raise ConfigError(
                f"data.{SETS}.{index}: another set is called {alias!r}, too; give each an {ALIAS!r}"
            )
        named[alias] = {key: value for key, value in each.items() if key != ALIAS}
    return {**data, SETS: named, **_name_weights(data.get("weights"), list(named))}


def _name_weights(weights: Any, names: list[str]) -> dict[str, Any]:
    if not isinstance(weights, list | tuple):
        return {}
    if len(weights) != len(names):
        raise ConfigError(
            f"data.weights: {len(weights)} weights for {len(names)} sets; give one each"
        )
    return {"weights": dict(zip(names, weights, strict=True))}


def change_sets(
    data: Mapping[str, Any], change: Callable[[dict[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    """Change the section `data`, and each of its sets if there are several.

    Args:
        data: the section `data`; types may be wrong.
        change: function from the section of one dataset to a changed copy.

    Returns:
        The changed copy.
    """
    changed = change(dict(data))
    sets = data.get(SETS)
    if data.get("name") != MIXED or not isinstance(sets, dict | list | tuple):
        return changed
    if isinstance(sets, dict):
        changed[SETS] = {
            name: change_sets(each, change) if isinstance(each, dict) else each
            for name, each in sets.items()
        }
    else:
        changed[SETS] = [
            change_sets(each, change) if isinstance(each, dict) else each for each in sets
        ]
    return changed

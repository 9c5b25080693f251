"""Settings that the configuration in a weights file or run folder must not control.

The file may come from another source. Its author must not choose where files are written, which
URLs are read, or how many processes are started on this machine. Overrides of the user are applied
afterwards and may set all of these.
"""

from __future__ import annotations

from typing import Any

from densemtl.config.data_sets import change_sets

MAX_SAVED_WORKERS = 2
"""Maximum of a number of worker processes in a saved configuration."""

UNCONFIRMED = "unconfirmed:"
"""Prefix of a URL in a saved configuration, which is not read unless the user repeats it."""

LOADER_KEYS, DATA_KEYS = ("cache", "cache_dir"), ("cache_dir", "max_cached_shards")
"""Keys of the sections `loader` and `data` that are replaced by their defaults."""


def restrict_saved(values: dict[str, Any]) -> dict[str, Any]:
    """Remove the settings of another machine from a saved configuration.

    Trackers, baselines, initial weights and teachers are kept, since only training uses them.

    Args:
        values: a configuration; types may be wrong.

    Returns:
        A copy without caches, with a number of workers of at most `MAX_SAVED_WORKERS` ("auto" is
        kept, since it depends on this machine), and with `UNCONFIRMED` before a URL in `data.root`.

    Example:
        >>> restrict_saved({"data": {"name": "shards", "root": "https://example.org"}})["data"]
        {'name': 'shards', 'root': 'unconfirmed:https://example.org'}
    """
    restricted = dict(values)
    if isinstance(loader := values.get("loader"), dict):
        kept = {key: value for key, value in loader.items() if key not in LOADER_KEYS}
        workers = kept.get("num_workers")
        if isinstance(workers, int):
            kept["num_workers"] = min(workers, MAX_SAVED_WORKERS)
        restricted["loader"] = kept
    if isinstance(data := values.get("data"), dict):
        restricted["data"] = change_sets(data, _restrict_data)
    return restricted


def _restrict_data(data: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in data.items() if key not in DATA_KEYS}
    if isinstance(root := kept.get("root"), str) and "://" in root:
        kept["root"] = UNCONFIRMED + root
    return kept

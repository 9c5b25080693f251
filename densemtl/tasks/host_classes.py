"""Classes of another task that are given by names or ids."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.errors import ConfigError, suggest
from densemtl.tasks.base import Task
from densemtl.tasks.classification import Classification


def find_host(name: str, task: Task, tasks: Sequence[Task], path: str) -> Classification:
    """Find another task with classes.

    Args:
        name: name of the other task.
        task: task that refers to it.
        tasks: all tasks.
        path: path of the option in the configuration, for error messages.

    Returns:
        The other task, which is not one with the option `entire_space`.

    Raises:
        ConfigError: if there is no such task.
    """
    hosts = {
        host.name: host
        for host in tasks
        if isinstance(host, Classification) and host is not task and host.entire_space is None
    }
    if name not in hosts:
        hint = suggest(name, hosts) if hosts else f"there is none; remove {path}"
        raise ConfigError(f"{path}.of: no other task {name!r} with classes, {hint}")
    return hosts[name]


def find_class_ids(classes: Sequence[str | int], host: Classification, path: str) -> frozenset[int]:
    """Find the ids of classes of another task.

    Args:
        classes: names or ids.
        host: the other task.
        path: path of the option in the configuration, for error messages.

    Returns:
        The ids.

    Raises:
        ConfigError: if one of the classes does not exist, or if all classes are listed.
    """
    ids = frozenset(_find_class(name, host, path) for name in classes)
    if len(ids) == host.channels:
        raise ConfigError(f"{path}.classes: are all classes of {host.name!r}; list some of them")
    return ids


def _find_class(name: str | int, host: Classification, path: str) -> int:
    """Return the id of a class that is given by name or id."""
    if isinstance(name, int) and name < host.channels:
        return name
    if name in host.class_names:
        return host.class_names.index(str(name))
    hint = (
        suggest(name, host.class_names)
        if isinstance(name, str)
        else f"ids are 0 to {host.channels - 1}"
    )
    raise ConfigError(f"{path}.classes: no class {name!r} in {host.name!r}, {hint}")

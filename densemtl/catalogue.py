"""The names of all components, told without importing any."""

from __future__ import annotations

from densemtl import registry


def list_decoders() -> list[str]:
    """Architectures."""
    return registry.names("decoders")


def list_heads() -> list[str]:
    """Task heads."""
    return registry.names("heads")


def list_tasks() -> list[str]:
    """Tasks, and the generic kinds that tasks of one's own are made from."""
    return registry.names("tasks")


def list_datasets() -> list[str]:
    """Datasets."""
    return registry.names("data")


def list_balancing() -> list[str]:
    """Rules that weigh losses or gradients."""
    return registry.names("balancing")


def list_trackers() -> list[str]:
    """What can show a run while it goes."""
    return registry.names("trackers")


def list_metrics() -> list[str]:
    """Metrics, which can be added to a task."""
    return registry.names("metrics")


def list_protocols() -> list[str]:
    """Protocols, each of which scores every task by metrics of its own."""
    return registry.names("metrics.protocols")

"""The names of all components, told without importing any."""

from __future__ import annotations

from densemtl import components


def list_decoders() -> list[str]:
    """Architectures."""
    return components.names("decoders")


def list_heads() -> list[str]:
    """Task heads."""
    return components.names("heads")


def list_tasks() -> list[str]:
    """Tasks, and the generic kinds that tasks of one's own are made from."""
    return components.names("tasks")


def list_datasets() -> list[str]:
    """Datasets."""
    return components.names("data")


def list_balancing() -> list[str]:
    """Rules that weigh losses or gradients."""
    return components.names("balancing")


def list_trackers() -> list[str]:
    """What can show a run while it goes."""
    return components.names("trackers")


def list_metrics() -> list[str]:
    """Metrics, which can be added to a task."""
    return components.names("metrics")


def list_protocols() -> list[str]:
    """Protocols, each of which scores every task by metrics of its own."""
    return components.names("metrics.protocols")

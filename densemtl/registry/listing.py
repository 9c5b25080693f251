"""Lists of the components of each kind."""

from __future__ import annotations

from densemtl.registry.lookup import list_names


def list_decoders() -> list[str]:
    """List the decoders.

    Returns:
        Sorted names, for `decoder.name`.

    Example:
        >>> {"hard_sharing", "mti_net"} <= set(list_decoders())
        True
    """
    return list_names("decoders")


def list_heads() -> list[str]:
    """List the heads.

    Returns:
        Sorted names, for `head.name`.

    Example:
        >>> list_heads()
        ['deeplabv3', 'fpn', 'hrnetv2', 'linear']
    """
    return list_names("heads")


def list_tasks() -> list[str]:
    """List the tasks, including the generic kinds from which custom tasks are defined.

    Returns:
        Sorted names, for `tasks` and for the `kind` of a custom task.

    Example:
        >>> {"semseg", "depth", "normals", "regression"} <= set(list_tasks())
        True
    """
    return list_names("tasks")


def list_datasets() -> list[str]:
    """List the datasets.

    Returns:
        Sorted names, for `data.name`.

    Example:
        >>> list_datasets()
        ['folder', 'mixed', 'nyud', 'pascal_context', 'shards', 'synthetic']
    """
    return list_names("data.datasets")


def list_balancing() -> list[str]:
    """List the balancing methods, both loss-weighting and gradient methods.

    Returns:
        Sorted names, for `balancing.name`.

    Example:
        >>> {"fixed", "uncertainty", "pcgrad"} <= set(list_balancing())
        True
    """
    return list_names("balancing")


def list_trackers() -> list[str]:
    """List the experiment trackers.

    Returns:
        Sorted names, for `trackers`.

    Example:
        >>> list_trackers()
        ['mlflow', 'tensorboard', 'wandb']
    """
    return list_names("trackers")


def list_metrics() -> list[str]:
    """List the metrics that can be added to a task.

    Returns:
        Sorted names, for the `metrics` of a task.

    Example:
        >>> {"miou", "depth", "boundary"} <= set(list_metrics())
        True
    """
    return list_names("metrics")


def list_protocols() -> list[str]:
    """List the evaluation protocols, each of which defines the metrics of every task.

    Returns:
        Sorted names, for `protocol`.

    Example:
        >>> list_protocols()
        ['modern', 'survey']
    """
    return list_names("metrics.protocols")

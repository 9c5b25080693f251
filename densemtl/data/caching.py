"""Caches of a dataset, as the section `loader` of the configuration selects them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from densemtl import __version__
from densemtl.config.components import ComponentConfig
from densemtl.config.sections import LoaderConfig
from densemtl.data.base import DenseDataset
from densemtl.data.disk_cache import MemmapCacheDataset
from densemtl.data.loaders import count_workers
from densemtl.data.memory_cache import InMemoryDataset
from densemtl.data.skip_corrupt import SkipCorruptDataset
from densemtl.io.paths import parse_path


def cache_dataset(
    loader: LoaderConfig, dataset: DenseDataset, name: str, options: dict[str, Any]
) -> DenseDataset:
    """Leave out the corrupt samples of a dataset and cache it, if the configuration says so.

    Args:
        loader: the section `loader` of the configuration.
        dataset: a split.
        name: name of the dataset in the configuration.
        options: options of the dataset.

    Returns:
        The same dataset, or one that wraps it.

    Raises:
        DataError: if a sample cannot be read that is read in advance.
    """
    if loader.on_corrupt == "skip":
        dataset = SkipCorruptDataset(dataset, count_workers(loader.num_workers))
    if loader.cache == "memory":
        return InMemoryDataset(dataset, count_workers(loader.num_workers))
    if loader.cache == "disk":
        component = ComponentConfig(name=name, **options)
        return MemmapCacheDataset(dataset, _get_cache_dir(loader, dataset, component))
    return dataset


def _get_cache_dir(loader: LoaderConfig, dataset: DenseDataset, component: ComponentConfig) -> Path:
    """Return a cache folder whose name depends on everything that affects the samples."""
    data = component.model_dump_json()
    terms = [__version__, data, dataset.split, *dataset.tasks, dataset.fingerprint()]
    key = hashlib.sha256("\n".join(terms).encode()).hexdigest()[:16]
    return parse_path(loader.cache_dir) / f"{component.name}-{dataset.split}-{key}"

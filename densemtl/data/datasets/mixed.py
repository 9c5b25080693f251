"""Several datasets with different labels, for one network that learns all of them.

data:
  name: mixed
  sets:
    nyud: {name: nyud, root: datasets/nyud, tasks: [semseg, depth]}
    street: {name: folder, root: datasets/street, .., tasks: {semseg: street_parts}}
  weights: {nyud: 2, street: 1}

A task without labels in a set has no label for the images of this set. Labels with other classes
are another task: `tasks: {semseg: street_parts}` uses the label `semseg` of a set for the task
`street_parts` of the run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from densemtl import registry
from densemtl.config.constraints import PositiveFloat, PositiveInt
from densemtl.config.sections import AugmentConfig
from densemtl.config.set_config import SetConfig
from densemtl.data.base import DenseDataset
from densemtl.data.datasets.background_labels import check_background_labels
from densemtl.data.datasets.mixed_sets import (
    SetView,
    Wrap,
    check_same_labels,
    find_set_tasks,
    get_own_tasks,
    parse_set_options,
)
from densemtl.data.mixture import Mixture
from densemtl.errors import ConfigError, join_names, suggest
from densemtl.types import ImageFormat, Sample, Split

SetName = Annotated[str, Field(pattern="^[A-Za-z0-9_-]+$")]
"""Name of a set, the first part of the ids of its images."""


class MixedDataset(DenseDataset):
    """Split of several datasets; each image has the labels of its own set only.

    The id of an image begins with the name of its set. In an epoch, each set has a share of the
    images that is proportional to its weight; within a set, all images are visited equally often.
    Sets without labels of the tasks are left out.

    Args:
        split: "train" or "val".
        tasks: names of the tasks whose labels are read.
        sets: {name: dataset with its options}, and `tasks`, `augment` and `background` of the set.
        weights: {set: weight} for all sets; by default the numbers of training images.
        one_set_per_batch: whether all images of a batch are from one set.
        epoch_images: number of images per epoch; by default the number of all training images.

    Raises:
        ConfigError: if no set has labels of a task, or sets have different classes of a task.
        DataError: if files of a set are missing; names the set.
    """

    def __init__(
        self,
        split: Split,
        tasks: Sequence[str],
        *,
        sets: Annotated[dict[SetName, SetConfig], Field(min_length=1)],
        weights: dict[str, PositiveFloat] | None = None,
        one_set_per_batch: bool = False,
        epoch_images: PositiveInt | None = None,
    ) -> None:
        super().__init__(split, tasks)
        _check_weights(weights, sets)
        self._weights, self._epoch_images = weights, epoch_images
        self._one_set_per_batch = one_set_per_batch
        self._all_parts = {
            name: SetView(name, sets[name], split, self.tasks) for name in sorted(sets)
        }
        self._select_parts(tasks)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        """Return the tasks of all sets, under their names in the run.

        Args:
            **options: the options of the dataset, of which `sets` and `weights` are read.

        Returns:
            {task name: {option: default value}}.

        Raises:
            ConfigError: if two sets have labels of the same name with different classes, or other
                options that differ, or weights or the background of a set are wrong.
        """
        _check_weights(options.get("weights"), options["sets"])
        defaults: dict[str, dict[str, Any]] = {}
        first: dict[str, str] = {}
        for set_name, config in sorted(options["sets"].items()):
            for task, new in find_set_tasks(set_name, config).items():
                if task in defaults:
                    check_same_labels(task, defaults[task], new, (first[task], set_name))
                defaults[task] = {**defaults.get(task, {}), **new}
                first.setdefault(task, set_name)
        for set_name, config in sorted(options["sets"].items()):
            if config.background:
                used = find_set_tasks(set_name, config)
                check_background_labels(set_name, config, get_own_tasks(config), used, defaults)
        return defaults

    @classmethod
    def image_format(cls, **options: Any) -> ImageFormat:
        """Return the channels of the images, which must be the same in all sets.

        Args:
            **options: the options of the dataset, of which `sets` is read.

        Returns:
            The channels.

        Raises:
            ConfigError: if the images of two sets have different channels.
        """
        formats = {
            name: registry.get_class("data.datasets", config.name).image_format(
                **parse_set_options(config)
            )
            for name, config in sorted(options["sets"].items())
        }
        first = next(iter(formats))
        for name, image_format in formats.items():
            if image_format != formats[first]:
                raise ConfigError(
                    f"data.sets: images of {first!r} and {name!r} differ in their channels"
                )
        joint: ImageFormat = formats[first]
        return joint

    @property
    def parts(self) -> Mapping[str, DenseDataset]:
        """The split of each set that has labels of the tasks, with ids and tasks of the run."""
        return self._parts

    @property
    def all_parts(self) -> Mapping[str, DenseDataset]:
        """The split of each set, also of those without labels of the tasks."""
        return self._all_parts

    def adapt_augment(self, shared: AugmentConfig) -> list[AugmentConfig]:
        """Return the augmentation of each set.

        Args:
            shared: the section `augment` of the configuration.

        Returns:
            `shared` with the values that each set changes, in the order of `parts`.
        """
        return [part.config.adapt_augment(shared) for part in self._parts.values()]

    def select_tasks(self, tasks: Sequence[str]) -> MixedDataset:
        """Return the split without the sets that have no labels of some tasks.

        Args:
            tasks: names of some of the tasks.

        Returns:
            A dataset that shares the remaining sets with this one.
        """
        selected = object.__new__(type(self))
        selected.__dict__.update(self.__dict__)
        selected._select_parts(tasks)
        return selected

    def wrap_parts(self, wrap: Wrap) -> MixedDataset:
        """Replace the dataset of each set, by a cache for example.

        Args:
            wrap: function from the dataset of a set, with its own ids and tasks, to another one
                with the same samples, or some of them.

        Returns:
            This dataset.
        """
        for part in self._parts.values():
            part.wrap(wrap)
        self._index_parts()
        return self

    def _select_parts(self, tasks: Sequence[str]) -> None:
        self.tasks = tuple(tasks)
        self._parts = {
            name: part for name, part in self._all_parts.items() if set(part.tasks) & set(tasks)
        }
        for task in tasks:
            if not any(task in part.tasks for part in self._parts.values()):
                raise ConfigError(f"data.sets: no set has labels of {task!r}; remove the task")
        self._index_parts()

    def _index_parts(self) -> None:
        """Update everything that depends on the images of the sets."""
        parts = self._parts.values()
        self.ids = tuple(name for part in parts for name in part.ids)
        self._ends = np.cumsum([len(part) for part in parts])
        self.left_out = {
            f"{reason} of {name}": count
            for name, part in self._parts.items()
            for reason, count in part.left_out.items()
        }
        self.missing_labels = {
            task: "; ".join(
                part.missing_labels[task] for part in parts if task in part.missing_labels
            )
            for task in self.tasks
            if any(task in part.missing_labels for part in parts)
        }
        self.task_sets = {
            task: tuple(name for name, part in self._parts.items() if task in part.tasks)
            for task in self.tasks
        }
        sizes = [len(part) for part in parts]
        self.mixture = Mixture(
            tuple(self._parts),
            sizes,
            [self._weights[name] for name in self._parts] if self._weights else sizes,
            [part.shard_sizes for part in parts],
            self._epoch_images or sum(sizes),
            self._one_set_per_batch,
        )

    def __getitem__(self, index: int) -> Sample:
        part, position = self._locate(index)
        return part[position]

    def get_sample_version(self, index: int) -> str:
        """Return the version of the sample in its set.

        Args:
            index: position in `ids`.

        Returns:
            At most 64 ASCII characters.
        """
        part, position = self._locate(index)
        return part.get_sample_version(position)

    def _locate(self, index: int) -> tuple[DenseDataset, int]:
        """Return the set of an image and the position of the image in it."""
        index = range(len(self))[index]
        number = int(np.searchsorted(self._ends, index, side="right"))
        part = tuple(self._parts.values())[number]
        return part, index - int(self._ends[number]) + len(part)

    def fingerprint(self) -> str:
        """Return a hash that identifies the evaluated images.

        It includes the sets without labels of the tasks, so that the result of a single-task run
        can be compared with that of a run with all tasks.

        Returns:
            12 hexadecimal digits.
        """
        parts = [f"{name} {part.fingerprint()}" for name, part in self._all_parts.items()]
        text = "\n".join([type(self).__name__, self.split, *parts])
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _check_weights(weights: Mapping[str, float] | None, sets: Mapping[str, SetConfig]) -> None:
    if weights is None or set(weights) == set(sets):
        return
    for name in weights:
        if name not in sets:
            raise ConfigError(f"data.weights.{name}: no set {name!r}, {suggest(name, sets)}")
    missing = join_names(sorted(set(sets) - set(weights)), 5)
    raise ConfigError(f"data.weights: give a weight for every set; missing: {missing}")

"""Training labels of a set in which the classes of a task do not occur: background everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from densemtl import registry
from densemtl.config.set_config import SetConfig
from densemtl.errors import ConfigError, suggest
from densemtl.tasks.binary import Binary
from densemtl.types import IGNORE_INDEX, Size

BACKGROUND = "background"
"""Name of class 0 of a task that can be background everywhere."""

TaskDefaults = Mapping[str, Mapping[str, Any]]
"""{task: {option: default value}}"""


@dataclass(frozen=True)
class BackgroundLabel:
    """Label that is 0 in every pixel, except those that another label of the image excludes.

    Args:
        excluded: {label of the set: ids}. Pixels of these ids, and ignored pixels of these labels,
            are ignored.

    Example:
        >>> import numpy as np
        >>> rule = BackgroundLabel({"semseg": [2]})
        >>> rule.make({"semseg": np.array([[0, 1, 2, 255]], np.uint8)}, (1, 4))
        array([[  0,   0, 255, 255]], dtype=uint8)
    """

    excluded: Mapping[str, Sequence[int]]

    def make(self, labels: Mapping[str, NDArray[np.generic]], size: Size) -> NDArray[np.generic]:
        """Return the label of an image.

        Args:
            labels: labels of the image; a missing label excludes all pixels.
            size: (height, width) of the image.

        Returns:
            Ids of shape (H, W), uint8.
        """
        result = np.zeros(size, np.uint8)
        for name, ids in self.excluded.items():
            if name in labels:
                result[np.isin(labels[name], [*ids, IGNORE_INDEX])] = IGNORE_INDEX
            else:
                result[:] = IGNORE_INDEX
        return result


def make_background_labels(config: SetConfig, own: TaskDefaults) -> dict[str, BackgroundLabel]:
    """Return the background labels of a set.

    Args:
        config: configuration of the set.
        own: tasks of the dataset under their names in it, with their default options.

    Returns:
        {task of the run: label}.
    """
    return {
        task: BackgroundLabel(
            {
                label: [own[label]["class_names"].index(name) for name in names]
                for label, names in excluded.items()
            }
        )
        for task, excluded in config.background.items()
    }


def check_background_labels(
    set_name: str, config: SetConfig, own: TaskDefaults, used: TaskDefaults, all_tasks: TaskDefaults
) -> None:
    """Check the key `background` of a set.

    Args:
        set_name: name of the set.
        config: configuration of the set.
        own: tasks of the dataset under their names in it, with their default options.
        used: tasks that the run takes from the set, under their names in the run.
        all_tasks: tasks of all sets.

    Raises:
        ConfigError: if a task or class does not exist, the set has labels of the task, or the task
            has no background.
    """
    for error in _find_errors(config, own, used, all_tasks):
        raise ConfigError(f"data.sets.{set_name}.background.{error}")


def _find_errors(
    config: SetConfig, own: TaskDefaults, used: TaskDefaults, all_tasks: TaskDefaults
) -> Iterator[str]:
    for task, excluded in config.background.items():
        if task not in all_tasks:
            yield f"{task}: no set has labels of {task!r}, {suggest(task, all_tasks)}"
        elif task in used:
            yield f"{task}: the set has labels of {task!r}; remove it here, or from its tasks"
        elif not _has_background(task, all_tasks[task]):
            yield f"{task}: class 0 of {task!r} is not {BACKGROUND!r}; remove it"
        for label, names in excluded.items():
            classes = own.get(label, {}).get("class_names")
            if not classes:
                with_classes = [name for name, options in own.items() if options.get("class_names")]
                hint = suggest(label, with_classes) if with_classes else "remove it"
                yield f"{task}.{label}: the set has no label {label!r} with classes; {hint}"
                continue
            for name in names:
                if name not in classes:
                    hint = suggest(name, classes)
                    yield f"{task}.{label}: {label!r} has no class {name!r}, {hint}"


def _has_background(task: str, options: Mapping[str, Any]) -> bool:
    """Return whether id 0 of a task means that nothing is there."""
    if options.get("class_names"):
        return bool(options["class_names"][0] == BACKGROUND)
    kind = registry.get_class("tasks", options.get("kind") or task)
    return issubclass(kind, Binary)

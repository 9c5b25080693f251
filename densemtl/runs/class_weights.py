"""Class weights of losses that a run computes from its training labels, and saves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import add

from densemtl.config.components import TaskConfig
from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.label_statistics import count_classes, select_images
from densemtl.distributed.collectives import all_gather_object, get_rank, get_world_size
from densemtl.factory import build_auxiliary_tasks, build_tasks
from densemtl.losses import class_weights
from densemtl.losses.class_weights import ClassCounts
from densemtl.runtime.progress_bar import print_message, track_progress
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask
from densemtl.tasks.loss_task import LossTask

MAX_IMAGES = 5000
"""Largest number of images whose labels are counted; see `select_images` for more images."""


def compute_class_weights(experiment: ExperimentConfig, train: DenseDataset) -> ExperimentConfig:
    """Compute the class weights that losses of an experiment need and that are not saved yet.

    The labels are read once, without augmentation, divided among the ranks, and the weights are
    printed. They do not depend on the number of ranks or on the seed.

    Args:
        experiment: the experiment, with the weights that its run folder contains.
        train: its training split.

    Returns:
        The experiment with `computed_class_weights` of its tasks.

    Raises:
        DataError: if an image cannot be read, or its labels are impossible.
    """
    tasks = [*build_tasks(experiment), *build_auxiliary_tasks(experiment)]
    missing = [task for task in tasks if _is_missing(task)]
    if not missing:
        return experiment
    indices = select_images(train, MAX_IMAGES)
    counts = _count(train, missing, indices)
    weights: dict[str, dict[str, tuple[float, ...]]] = {}
    for task in missing:
        assert isinstance(task, LossTask)
        methods = task.losses.list_missing_class_weights()
        weights[task.name] = {
            method: tuple(class_weights.compute_class_weights(method, counts[task.name]))
            for method in methods
        }
        for method, values in weights[task.name].items():
            listed = ", ".join(f"{value:g}" for value in values)
            print_message(
                f"{task.name}: class weights ({method}, from {len(indices)} of {len(train)} "
                f"training images): {listed}"
            )
    return _update_tasks(experiment, lambda task: weights.get(task.name, {}))


def keep_class_weights(experiment: ExperimentConfig, saved: ExperimentConfig) -> ExperimentConfig:
    """Copy the computed class weights of a saved experiment.

    Args:
        experiment: the experiment to resume.
        saved: the experiment in its run folder.

    Returns:
        The experiment with the weights of the tasks that both have.
    """
    tasks = {task.name: task for task in (*saved.tasks, *saved.auxiliary_tasks)}
    return _update_tasks(
        experiment,
        lambda task: tasks[task.name].computed_class_weights if task.name in tasks else {},
    )


def _is_missing(task: Task) -> bool:
    return isinstance(task, LossTask) and bool(task.losses.list_missing_class_weights())


def _count(
    train: DenseDataset, tasks: Sequence[Task], indices: Sequence[int]
) -> dict[str, ClassCounts]:
    """Return the counts of all ranks, of which each reads a part of the images."""
    categorical = [task for task in tasks if isinstance(task, CategoricalTask)]
    part = indices[get_rank() :: get_world_size()]
    title = f"counting the classes of {len(part)} training images"
    counts = count_classes(train, categorical, track_progress(part, len(part), title))
    ranks = all_gather_object(counts)
    return {name: reduce(add, (rank[name] for rank in ranks)) for name in counts}


def _update_tasks(
    experiment: ExperimentConfig,
    get_weights: Callable[[TaskConfig], dict[str, tuple[float, ...]]],
) -> ExperimentConfig:
    def update(task: TaskConfig) -> TaskConfig:
        weights = {**task.computed_class_weights, **get_weights(task)}
        return task.model_copy(update={"computed_class_weights": weights}) if weights else task

    return experiment.model_copy(
        update={
            "tasks": tuple(map(update, experiment.tasks)),
            "auxiliary_tasks": tuple(map(update, experiment.auxiliary_tasks)),
        }
    )

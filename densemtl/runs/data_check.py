"""Checks of the data and of frozen weights before training."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.check import DataWarning, check_sets
from densemtl.data.splits import Splits
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import DataError
from densemtl.factory import build_auxiliary_tasks, build_tasks
from densemtl.runtime.progress_bar import print_message

IMAGES_BEFORE_TRAINING = 32
"""Number of images per split that are examined; `densemtl check_data` examines all."""

EXACT_DATASETS = ("synthetic",)
"""Datasets that are not checked, since their labels are rendered."""


def check_before_training(experiment: ExperimentConfig, splits: Splits) -> list[DataWarning]:
    """Examine some images of both splits of each set, and print warnings about suspicious data.

    Random number generators are not used, so that the check does not change the result of training.

    Args:
        experiment: the experiment that will be trained.
        splits: its training and validation splits.

    Returns:
        The warnings.

    Raises:
        DataError: if an examined image cannot be read, or its labels are impossible.
    """
    if experiment.data.name in EXACT_DATASETS:
        return []
    tasks = [*build_tasks(experiment), *build_auxiliary_tasks(experiment)]
    checks = check_sets(splits.train, splits.val, tasks, IMAGES_BEFORE_TRAINING).values()
    errors = [error for check in checks for error in check.errors]
    warnings = [warning for check in checks for warning in check.warnings]
    if errors:
        others = len(errors) - 1
        more = f" (and {others} more errors, listed by densemtl check_data)" if others else ""
        raise DataError(errors[0] + more)
    if is_main_process():
        printed = (*splits.train.missing_labels.values(), *splits.val.missing_labels.values())
        # A message about a set of a mixture begins with its name.
        for warning in (each for each in warnings if not each.text.endswith(printed)):
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    return warnings


def warn_about_random_frozen(experiment: ExperimentConfig) -> list[DataWarning]:
    """Print and return warnings about frozen networks that keep random weights.

    Args:
        experiment: the experiment that will be trained.

    Returns:
        The warnings: about frozen parts of the backbone of the run, or only of its single-task
        baselines, and about the teachers of features.
    """
    texts = [*_find_random_teachers(experiment), *_find_random_backbones(experiment)]
    for text in texts:
        print_message(f"warning: {text}")
    return [DataWarning(text) for text in texts]


def _find_random_teachers(experiment: ExperimentConfig) -> Iterator[str]:
    """Yield one line for each teacher of features whose weights are random."""
    teachers = experiment.distill.teachers if experiment.distill is not None else ()
    for index, teacher in enumerate(teachers):
        if not teacher.pretrained and teacher.weights is None:
            yield (
                f"distill.teachers.{index}: {teacher.name} has random weights, which teach nothing;"
                " set pretrained=true or weights"
            )


def _find_random_backbones(experiment: ExperimentConfig) -> Iterator[str]:
    """Yield a line if frozen parts of the backbone keep random weights."""
    options = experiment.backbone.options
    frozen = options.get("freeze", "none")
    setting = "backbone.adapters" if options.get("adapters") else f"backbone.freeze={frozen}"
    is_frozen = frozen not in ("none", "norm") or setting == "backbone.adapters"
    if not is_frozen or options.get("pretrained", True) or options.get("weights"):
        return
    if experiment.init_from == "none":
        yield (
            f"{setting} keeps random weights; set backbone.pretrained=true, backbone.weights or"
            " init_from"
        )
    elif experiment.baselines == "auto":
        yield (
            f"the single-task baselines keep random weights ({setting}), since init_from is not for"
            " them; use baselines=none"
        )


def select_warnings(warnings: Sequence[DataWarning], tasks: Sequence[str]) -> list[str]:
    """Select the warnings that concern a run.

    Args:
        warnings: the warnings about all tasks.
        tasks: names of the tasks of the run.

    Returns:
        The texts of warnings about images and about the labels of these tasks.
    """
    return [warning.text for warning in warnings if warning.task in (None, *tasks)]

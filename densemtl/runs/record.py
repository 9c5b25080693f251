"""Conversion of a finished or interrupted run to `Results`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.splits import Splits
from densemtl.engine.model_selection import get_selection_scores
from densemtl.engine.run_components import TrainingRun
from densemtl.evaluation.scores import Scores
from densemtl.results.results import Results, TaskResult, nan_to_none
from densemtl.runtime.versions import get_versions
from densemtl.tasks.added_metrics import IMAGES, OCCURRING_IDS
from densemtl.tasks.base import Task
from densemtl.tasks.categorical import CategoricalTask


def build_results(
    experiment: ExperimentConfig,
    splits: Splits,
    run: TrainingRun,
    gflop: float,
    warnings: Sequence[str] = (),
) -> Results:
    """Build the results of the best validated weights of a run.

    Args:
        experiment: the experiment that was trained.
        splits: its training and validation splits.
        run: the finished or interrupted run.
        gflop: cost of the forward pass of one image in GFLOP, as in `InitialModel`.
        warnings: what is suspicious in the data.

    Returns:
        Scores of all tasks, cost of training, and everything needed to reproduce them.
    """
    progress, tasks = run.state.progress, run.tasks
    return Results(
        run=get_component_names(experiment),
        tasks=build_task_results(progress.best_scores, tasks, experiment),
        protocol=experiment.protocol,
        split=splits.val.split,
        split_fingerprint=splits.val.fingerprint(),
        images=len(splits.val),
        weights_hash=progress.best_weights_hash,
        seed=experiment.seed,
        step=progress.best_step,
        complete=progress.step >= run.total_steps or bool(progress.stop_reason),
        stop_reason=progress.stop_reason,
        latest=nan_to_none(get_selection_scores(progress.scores, tasks, experiment.protocol)),
        seconds=round(progress.seconds, 1),
        images_per_second=round(progress.images / max(progress.train_seconds, 1e-9), 2),
        seconds_per_step=round(progress.train_seconds / max(progress.step, 1), 4),
        parameters=sum(parameter.numel() for parameter in run.train_step.model.parameters()),
        gflop=gflop,
        config_hash=experiment.compute_config_hash(),
        versions=get_versions(),
        warnings=list(warnings),
        set_images=splits.count_set_images(),
    )


def get_component_names(experiment: ExperimentConfig) -> dict[str, str]:
    """Return the names of the components of an experiment, for `Results.run`.

    Args:
        experiment: the experiment.

    Returns:
        {section of the configuration: name of the component}, under `teachers` the hash of the
        weights of the teacher of each task, and under `relationship`, `curriculum` and `distill`
        the learned covariances, the number of phases and the teachers of features, if there are
        any.
    """
    components = {
        "dataset": experiment.data,
        "backbone": experiment.backbone,
        "decoder": experiment.decoder,
        "head": experiment.head,
        "balancing": experiment.balancing,
    }
    names = {section: component.name for section, component in components.items()}
    hashes = (f"{task} {each.weights_hash}" for task, each in experiment.teachers.items())
    if experiment.teachers:
        names["teachers"] = ", ".join(hashes)
    if experiment.relationship is not None:
        names["relationship"] = ", ".join(experiment.relationship.update)
    if experiment.curriculum is not None:
        names["curriculum"] = f"{len(experiment.curriculum.phases)} phases"
    if experiment.distill is not None:
        names["distill"] = ", ".join(teacher.name for teacher in experiment.distill.teachers)
    return names


def build_task_results(
    scores: Scores, tasks: Sequence[Task], experiment: ExperimentConfig
) -> dict[str, TaskResult]:
    """Combine scores with the names and directions of the primary metrics.

    Args:
        scores: {task: {metric: value}}.
        tasks: the tasks that were evaluated.
        experiment: defines the evaluation protocol.

    Returns:
        {task: result}; metrics that are NaN become None.
    """
    return {
        task.name: TaskResult(
            primary_metric=task.get_primary_metric(experiment.protocol),
            selection_metric=task.get_selection_metric(experiment.protocol),
            higher_is_better=task.higher_is_better,
            metrics=nan_to_none(scores[task.name]),
            note=describe_labels(task, scores[task.name]),
        )
        for task in tasks
    }


def describe_labels(task: Task, scores: Mapping[str, float]) -> str:
    """Describe labels on which metrics are undefined or say little.

    Args:
        task: the evaluated task.
        scores: {metric: value} of the task, including the numbers of labeled images and ids. Scores
            of earlier versions lack the number of ids.

    Returns:
        A short note; "" if there is nothing to say.
    """
    if scores.get(IMAGES) == 0:
        return "all labels are ignored"
    num_ids = scores.get(OCCURRING_IDS)
    if num_ids is None or not isinstance(task, CategoricalTask) or num_ids == task.num_ids:
        return ""
    if num_ids == 1:
        return "the labels contain a single class"
    return f"{task.num_ids - int(num_ids)} of {task.num_ids} classes do not occur in the labels"

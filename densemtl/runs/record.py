"""What a run has come to, as `Results`."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.factory import Splits
from densemtl.config.experiment import Experiment
from densemtl.engine.model_selection import selection
from densemtl.evaluation.evaluate import Scores
from densemtl.engine.trainer import Job
from densemtl.results.results import Results, TaskResult, finite, versions
from densemtl.tasks.base import Task


def record_run(experiment: Experiment, splits: Splits, job: Job, gflop: float) -> Results:
    """Return the results of a run's best validated weights, and what it took to train them.

    Args:
        experiment: that was trained.
        splits: its data.
        job: the finished or interrupted training.
        gflop: cost of one forward pass, as of `InitialModel`.
    """
    record, tasks = job.state.record, job.tasks
    return Results(
        run=describe(experiment),
        tasks=task_results(record.best_scores, tasks, experiment),
        protocol=experiment.protocol,
        split=splits.val.split,
        split_fingerprint=splits.val.fingerprint(),
        images=len(splits.val),
        weights=record.best_weights,
        seed=experiment.seed,
        step=record.best_step,
        complete=record.step >= job.steps,
        latest=finite(selection(record.scores, tasks, experiment.protocol)),
        seconds=round(record.seconds, 1),
        images_per_second=round(record.images / max(record.train_seconds, 1e-9), 2),
        seconds_per_step=round(record.train_seconds / max(record.step, 1), 4),
        parameters=sum(each.numel() for each in job.train_step.model.parameters()),
        gflop=gflop,
        fingerprint=experiment.fingerprint(),
        versions=versions(),
    )


def describe(experiment: Experiment) -> dict[str, str]:
    """A run's parts by name, for `Results.run`."""
    parts = {
        "dataset": experiment.data,
        "backbone": experiment.backbone,
        "decoder": experiment.decoder,
        "head": experiment.head,
        "balancing": experiment.balancing,
    }
    return {what: part.name for what, part in parts.items()}


def task_results(
    scores: Scores, tasks: Sequence[Task], experiment: Experiment
) -> dict[str, TaskResult]:
    """Scores with the names and directions of the primary metrics."""
    return {
        task.name: TaskResult(
            primary=task.primary(experiment.protocol),
            selection=task.selection(experiment.protocol),
            higher_is_better=task.higher_is_better,
            metrics=finite(scores[task.name]),
        )
        for task in tasks
    }

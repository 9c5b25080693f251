"""What a run has come to, as `Results`."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.build import Splits, build_model, build_tasks
from densemtl.config import Experiment
from densemtl.engine.best import selection
from densemtl.engine.evaluate import Scores
from densemtl.engine.train import Job
from densemtl.introspection.costs import count_flop
from densemtl.results import Results, TaskResult, finite, versions
from densemtl.tasks.base import Task

GIGA = 1e9


def record_run(experiment: Experiment, splits: Splits, job: Job) -> Results:
    """The best validated weights of a run, and what it took to train them."""
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
        gflop=_gflop(experiment),
        fingerprint=experiment.fingerprint(),
        versions=versions(),
    )


def _gflop(experiment: Experiment) -> float:
    model = build_model(experiment, build_tasks(experiment), pretrained=False).to("meta")
    return round(sum(count_flop(model, experiment.input.size).values()) / GIGA, 4)


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

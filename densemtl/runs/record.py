"""What a run has come to, as `Results`."""

from __future__ import annotations

from collections.abc import Sequence

from densemtl.config.experiment import ExperimentConfig
from densemtl.engine.model_selection import get_selection_scores
from densemtl.engine.trainer import TrainingRun
from densemtl.evaluation.evaluate import Scores
from densemtl.factory import Splits
from densemtl.results.results import Results, TaskResult, nan_to_none
from densemtl.runtime.versions import get_versions
from densemtl.tasks.base import Task


def build_results(
    experiment: ExperimentConfig, splits: Splits, run: TrainingRun, gflop: float
) -> Results:
    """Return the results of a run's best validated weights, and what it took to train them.

    Args:
        experiment: that was trained.
        splits: its data.
        run: the finished or interrupted training.
        gflop: cost of one forward pass, as of `InitialModel`.
    """
    record, tasks = run.state.progress, run.tasks
    return Results(
        run=get_component_names(experiment),
        tasks=build_task_results(record.best_scores, tasks, experiment),
        protocol=experiment.protocol,
        split=splits.val.split,
        split_fingerprint=splits.val.fingerprint(),
        images=len(splits.val),
        weights_hash=record.best_weights_hash,
        seed=experiment.seed,
        step=record.best_step,
        complete=record.step >= run.total_steps,
        latest=nan_to_none(get_selection_scores(record.scores, tasks, experiment.protocol)),
        seconds=round(record.seconds, 1),
        images_per_second=round(record.images / max(record.train_seconds, 1e-9), 2),
        seconds_per_step=round(record.train_seconds / max(record.step, 1), 4),
        parameters=sum(parameter.numel() for parameter in run.train_step.model.parameters()),
        gflop=gflop,
        config_hash=experiment.compute_config_hash(),
        versions=get_versions(),
    )


def get_component_names(experiment: ExperimentConfig) -> dict[str, str]:
    """A run's parts by name, for `Results.run`."""
    parts = {
        "dataset": experiment.data,
        "backbone": experiment.backbone,
        "decoder": experiment.decoder,
        "head": experiment.head,
        "balancing": experiment.balancing,
    }
    return {section: part.name for section, part in parts.items()}


def build_task_results(
    scores: Scores, tasks: Sequence[Task], experiment: ExperimentConfig
) -> dict[str, TaskResult]:
    """Scores with the names and directions of the primary metrics."""
    return {
        task.name: TaskResult(
            primary_metric=task.get_primary_metric(experiment.protocol),
            selection_metric=task.get_selection_metric(experiment.protocol),
            higher_is_better=task.higher_is_better,
            metrics=nan_to_none(scores[task.name]),
        )
        for task in tasks
    }

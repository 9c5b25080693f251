"""Compute the metrics that are too slow for every validation, once for the best weights."""

from __future__ import annotations

import time
from collections.abc import Collection

from densemtl.distributed.collectives import barrier
from densemtl.distributed.sharding import unsharded
from densemtl.engine.checkpoint import BEST_NAME, load_state_strict, load_weights
from densemtl.engine.trainer import TrainingRun
from densemtl.evaluation.final_metrics import evaluate_with_final_metrics
from densemtl.metrics.create import list_values
from densemtl.runtime.progress_bar import track_progress
from densemtl.tasks.base import Task


def compute_final_metrics(run: TrainingRun) -> None:
    """Complete the record of the best weights by the metrics that it lacks.

    These are final metrics, and metrics that the user added after the weights were scored.

    What it adds is saved with the record, so that another call finds it; a call that is killed
    leaves everything as it was.

    Raises:
        CheckpointError: the best weights are not there.
        WorkerError: a process was killed.
    """
    record, started = run.state.progress, time.monotonic()
    names = {task.name: task.get_primary_metric(run.protocol) for task in run.tasks}
    lacking = [task for task in run.tasks if _lacks(record.best_scores[task.name], task, run)]
    if not lacking:
        return
    barrier()  # the first rank may still be writing them
    model, file = run.state.eval_model, run.folder / BEST_NAME
    latest = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_state_strict(model, load_weights(file).tensors, file)
    title = ", ".join(f"{task.name} {names[task.name]}" for task in lacking)
    batches = track_progress(run.val_loader, len(run.val_loader), f"{run.title}  {title}")
    precision, workers = run.train_step.precision, run.val_loader.num_workers
    with unsharded(model):
        scores = evaluate_with_final_metrics(
            model, batches, lacking, run.protocol, precision, workers
        )
    model.load_state_dict(latest)
    record.best_scores = {**record.best_scores, **scores}
    record.seconds += time.monotonic() - started
    run.state.save(run.folder, run.config_yaml)


def _lacks(metric_names: Collection[str], task: Task, job: TrainingRun) -> bool:
    """Whether values are missing that the task's metrics compute."""
    if not task.added_metrics:
        return task.get_primary_metric(job.protocol) not in metric_names
    metrics = [*task.metrics(job.protocol), *task.final_metrics(job.protocol)]
    return any(name not in metric_names for metric in metrics for name in list_values(metric))

"""Metrics that are too slow for every validation, computed once for the best weights."""

from __future__ import annotations

import time
from collections.abc import Collection

from densemtl.config.input_paths import BEST_NAME
from densemtl.distributed.collectives import barrier
from densemtl.distributed.sharding import unsharded
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.weights_file import load_state_strict, load_weights
from densemtl.metrics.create import list_values
from densemtl.runtime.progress_bar import track_progress
from densemtl.tasks.base import Task


def compute_final_metrics(run: TrainingRun) -> None:
    """Compute the metrics of the best weights that are still missing.

    These are final metrics, and metrics that the user added after the weights were evaluated. The
    new scores are saved in the checkpoint, so that another call does not compute them again. A call
    that is killed changes nothing.

    Args:
        run: a run whose best weights are saved; `run.state.progress` is updated.

    Raises:
        CheckpointError: if the best weights are missing.
        WorkerError: if a worker process was killed.
    """
    from densemtl.evaluation.final_metrics import evaluate_with_final_metrics

    progress, started = run.state.progress, time.monotonic()
    names = {task.name: task.get_primary_metric(run.protocol) for task in run.tasks}
    incomplete = [
        task for task in run.tasks if _lacks_metrics(progress.best_scores[task.name], task, run)
    ]
    if not incomplete:
        return
    barrier()  # the main process may still be writing the best weights
    model, file = run.state.eval_model, run.folder / BEST_NAME
    latest = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    load_state_strict(model, load_weights(file).tensors, file)
    title = ", ".join(f"{task.name} {names[task.name]}" for task in incomplete)
    batches = track_progress(run.val_loader, len(run.val_loader), f"{run.title}  {title}")
    precision, workers = run.train_step.precision, run.val_loader.num_workers
    with unsharded(model):
        scores = evaluate_with_final_metrics(
            model,
            batches,
            incomplete,
            run.protocol,
            precision,
            workers,
            task_sets=run.val_dataset.task_sets,
        )
    model.load_state_dict(latest)
    progress.best_scores = {**progress.best_scores, **scores}
    progress.seconds += time.monotonic() - started
    run.state.save(run.folder, run.config_yaml)


def _lacks_metrics(metric_names: Collection[str], task: Task, run: TrainingRun) -> bool:
    """Return whether `metric_names` lacks values that the metrics of the task compute."""
    if not task.added_metrics:
        return task.get_primary_metric(run.protocol) not in metric_names
    metrics = [*task.metrics(run.protocol), *task.final_metrics(run.protocol)]
    return any(name not in metric_names for metric in metrics for name in list_values(metric))

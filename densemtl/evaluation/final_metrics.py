"""Final metrics: too slow for every validation, so of the best weights alone, in processes."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.distributed.collectives import wait
from densemtl.engine.checkpoint import BEST, apply_weights, load_weights
from densemtl.evaluation.evaluate import Keep, Scorer, Scores, evaluate, join_scores
from densemtl.distributed.sharding import unsharded
from densemtl.runtime.execution import Precision
from densemtl.runtime.progress_bar import watched
from densemtl.engine.trainer import Job
from densemtl.metrics.base import as_arrays
from densemtl.metrics.create import list_values
from densemtl.runtime.process_pool import InOrder
from densemtl.tasks.base import Task
from densemtl.types import Batch, ProtocolName


class FinalScorer(Scorer):
    """All metrics, the final ones besides; a context, for the processes that count for these.

    Args:
        tasks: those to score.
        protocol: which family of metrics.
        device: of predictions and targets.
        workers: processes; below 2 this one counts.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        protocol: ProtocolName,
        device: torch.device | None = None,
        workers: int = 0,
    ) -> None:
        super().__init__(tasks, protocol, device)
        made = {task.name: task.final_metrics(protocol) for task in tasks}
        self._final = {name: [each.to(device) for each in own] for name, own in made.items() if own}
        self._work: dict[str, list[InOrder[Any, Any]]] = {
            name: [InOrder(metric.count, metric.add, workers) for metric in metrics]
            for name, metrics in self._final.items()
        }

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        super().update(task, prediction, target)
        if task.name not in self._final:
            return
        # Counts are added one by one as they arrive; torchmetrics asks for an update all the same.
        for metric in self._final[task.name]:
            metric.update(prediction[:0], target[:0])
        # Choosing by a mask copies: a prediction may lie in memory that the next image is put in.
        labelled = task.valid(target).flatten(1).any(1)
        pairs = zip(as_arrays(prediction[labelled]), as_arrays(target[labelled]), strict=True)
        for pair in pairs:
            for work in self._work[task.name]:
                work.put(pair)

    def scores(self) -> Scores:
        """Of all that was added; waits for the processes."""
        for work in chain.from_iterable(self._work.values()):
            work.finish()
        final = {name: join_scores(metrics) for name, metrics in self._final.items()}
        return {name: {**final.get(name, {}), **each} for name, each in super().scores().items()}

    def __enter__(self) -> FinalScorer:
        return self

    def __exit__(self, *_: object) -> None:
        for work in chain.from_iterable(self._work.values()):
            work.close()


def evaluate_fully(
    model: nn.Module,
    batches: Iterable[Batch],
    tasks: Sequence[Task],
    protocol: ProtocolName,
    precision: Precision,
    workers: int = 0,
    keep: Keep | None = None,
) -> Scores:
    """As `evaluate`, and the final metrics besides, counted by so many processes."""
    with FinalScorer(tasks, protocol, precision.device, workers) as scorer:
        return evaluate(model, batches, tasks, protocol, precision, keep, scorer)


def score_best(job: Job) -> None:
    """Complete the record of the best weights by the metrics that it lacks.

    These are final metrics, and metrics that the user added after the weights were scored.

    What it adds is saved with the record, so that another call finds it; a call that is killed
    leaves everything as it was.

    Raises:
        CheckpointError: the best weights are not there.
        WorkerError: a process was killed.
    """
    record, started = job.state.record, time.monotonic()
    names = {task.name: task.primary(job.protocol) for task in job.tasks}
    lacking = [task for task in job.tasks if _lacks(record.best_scores[task.name], task, job)]
    if not lacking:
        return
    wait()  # the first rank may still be writing them
    model, file = job.state.evaluated, job.folder / BEST
    latest = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    apply_weights(model, load_weights(file).tensors, file)
    title = ", ".join(f"{task.name} {names[task.name]}" for task in lacking)
    batches = watched(job.val_loader, len(job.val_loader), f"{job.title}  {title}")
    precision, workers = job.train_step.precision, job.val_loader.num_workers
    with unsharded(model):
        scores = evaluate_fully(model, batches, lacking, job.protocol, precision, workers)
    model.load_state_dict(latest)
    record.best_scores = {**record.best_scores, **scores}
    record.seconds += time.monotonic() - started
    job.state.save(job.folder, job.config)


def _lacks(found: Collection[str], task: Task, job: Job) -> bool:
    """Whether values are missing that the task's metrics compute."""
    if not task.added_metrics:
        return task.primary(job.protocol) not in found
    metrics = [*task.metrics(job.protocol), *task.final_metrics(job.protocol)]
    return any(name not in found for metric in metrics for name in list_values(metric))

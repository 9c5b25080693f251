"""Final metrics: too slow for every validation, so of the best weights alone, in processes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.distributed import wait
from densemtl.engine.checkpoint import BEST, apply_weights, load_weights
from densemtl.engine.evaluate import Keep, Scorer, Scores, evaluate
from densemtl.engine.fsdp import unsharded
from densemtl.engine.precision import Precision
from densemtl.engine.progress import watched
from densemtl.engine.train import Job
from densemtl.metrics.base import as_arrays
from densemtl.parallel import InOrder
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
        made = {task.name: task.final_metric(protocol) for task in tasks}
        self._final = {name: metric.to(device) for name, metric in made.items() if metric}
        self._work: dict[str, InOrder[Any, Any]] = {
            name: InOrder(metric.count, metric.add, workers) for name, metric in self._final.items()
        }

    def update(self, task: Task, prediction: Tensor, target: Tensor) -> None:
        """Add a task's decoded predictions and targets at original size."""
        super().update(task, prediction, target)
        if task.name not in self._final:
            return
        # Counts are added one by one as they arrive; torchmetrics asks for an update all the same.
        self._final[task.name].update(prediction[:0], target[:0])
        # Choosing by a mask copies: a prediction may lie in memory that the next image is put in.
        labelled = task.valid(target).flatten(1).any(1)
        pairs = zip(as_arrays(prediction[labelled]), as_arrays(target[labelled]), strict=True)
        for pair in pairs:
            self._work[task.name].put(pair)

    def scores(self) -> Scores:
        """Of all that was added; waits for the processes."""
        for work in self._work.values():
            work.finish()
        final = {name: metric.scores() for name, metric in self._final.items()}
        return {name: {**final.get(name, {}), **each} for name, each in super().scores().items()}

    def __enter__(self) -> FinalScorer:
        return self

    def __exit__(self, *_: object) -> None:
        for work in self._work.values():
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
    """Complete the record of the best weights by their final metrics, where it lacks them.

    What it adds is saved with the record, so that another call finds it; a call that is killed
    leaves everything as it was.

    Raises:
        CheckpointError: the best weights are not there.
        WorkerError: a process was killed.
    """
    record, started = job.state.record, time.monotonic()
    names = {task.name: task.primary(job.protocol) for task in job.tasks}
    lacking = [task for task in job.tasks if names[task.name] not in record.best_scores[task.name]]
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

"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from densemtl.data.base import DenseDataset
from densemtl.data.batching import EpochSampler, EvalView
from densemtl.data.dataloader import Loader
from densemtl.io.writers import write_picture
from densemtl.distributed.collectives import is_first, world_size
from densemtl.engine.model_selection import is_better, selection
from densemtl.engine.checkpoint import BEST, save_weights, weights_hash
from densemtl.evaluation.evaluate import evaluate
from densemtl.distributed.sharding import unsharded
from densemtl.engine.run_log import RELATIONS, SHARING, RunLog, open_log
from densemtl.engine.loss_monitor import LossMonitor, Means, check_weights
from densemtl.engine.optimizer import Schedule
from densemtl.visualization.prediction_panels import Predict, draw_panels
from densemtl.runtime.progress_bar import ProgressBar
from densemtl.engine.task_affinity import Relations, pairs_of
from densemtl.engine.sharing_probe import Probe, make_probe
from densemtl.engine.train_state import TrainState
from densemtl.engine.train_step import StepLog, TrainStep
from densemtl.errors import DataError
from densemtl.models.multi_task_model import DenseModel
from densemtl.config.sections import InputSettings, TrainSettings
from densemtl.tasks.base import Task
from densemtl.trackers.base import TrackedRun, Tracker
from densemtl.types import Batch, ProtocolName

PANELS = "panels"


@dataclass
class Job:
    """A run, built and ready to start or to go on.

    Attributes:
        title: its name on the terminal.
        folder: where everything is written.
        config: resolved configuration (YAML), saved with the weights.
        tasks: those that are scored; the train step may learn auxiliary ones besides.
        train_step: takes the steps.
        state: what they change.
        schedule: sets the learning rate.
        train_loader: batches of the training set.
        val_loader: batches of the validation set.
        val_set: its samples, for pictures.
        input: size and fit.
        predictor: makes of a model what draws its predictions.
        protocol: which family of metrics.
        settings: the loop's.
        trackers: what the log is shown by.
    """

    title: str
    folder: Path
    config: str
    tasks: Sequence[Task]
    train_step: TrainStep
    state: TrainState
    schedule: Schedule
    train_loader: Loader[Batch]
    val_loader: Loader[Batch]
    val_set: DenseDataset
    input: InputSettings
    predictor: Callable[[nn.Module], Predict]
    protocol: ProtocolName
    settings: TrainSettings
    trackers: Sequence[Tracker] = ()

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch; what does not fill a step is left out."""
        return count_steps(self.train_loader, self.settings.accumulate)

    @property
    def images_per_step(self) -> int:
        """Of all ranks together."""
        return batch_size(self.train_loader) * self.settings.accumulate


def batch_size(loader: Loader[Batch]) -> int:
    """Images in a batch that all ranks share."""
    return (loader.batch_size or 1) * world_size()


def count_steps(loader: Loader[Batch], accumulate: int) -> int:
    """Optimiser steps an epoch.

    Raises:
        DataError: the training set is too small for a single one.
    """
    images, batch = len(loader.dataset), batch_size(loader)  # type: ignore[arg-type]
    steps = images // batch // accumulate
    if steps == 0:
        raise DataError(
            f"{images} training images do not fill one step of {accumulate} batches of {batch}: "
            f"lower train.accumulate or loader.batch_size"
        )
    return steps


def train(job: Job, max_steps: int | None = None) -> None:
    """Train from where `job.state` stands to the end, or to `max_steps` steps in all.

    After it `best.safetensors` holds the best validated weights and `last/` all that another call
    goes on from.

    Raises:
        NonFiniteLossError: a loss or weight became NaN or infinite; names it and the step.
    """
    record, end = job.state.record, min(job.steps, max_steps or job.steps)
    title = ProgressBar(job.title, record.step, end, job.images_per_step)
    view = EvalView(job.val_set, job.input.size, job.input.fit)
    probe = make_probe(view, job.train_step.precision)
    relations = _Relating(job) if job.settings.relations_every else None
    run = TrackedRun(job.folder, job.title, yaml.safe_load(job.config), record.step)
    with open_log(run, job.trackers, title.say) as log, title as bar:
        if record.step == 0:
            _log_sharing(job, probe, log)
        while record.step < end:
            _train_epoch(job, end, bar, log)
            _log_sharing(job, probe, log)
            epoch = record.step // job.steps_per_epoch
            finished = record.step == end
            if relations and epoch % job.settings.relations_every == 0:
                relations.log(log)
            if finished or epoch % job.settings.eval_every == 0:
                _validate(job, bar, log)
            every = job.settings.panels_every
            if finished or (every and epoch % every == 0):
                _draw(job, log)
            job.state.save(job.folder, job.config)
            bar.pause()


def _train_epoch(job: Job, end: int, bar: ProgressBar, log: RunLog) -> None:
    """The rest of the present epoch, up to step `end`."""
    record, settings = job.state.record, job.settings
    monitor, means = LossMonitor(settings.non_finite == "skip", bar.say), Means()
    started = time.monotonic()
    for batches in _rest_of_epoch(job, end):
        losses = _step(job, batches)
        means.add(monitor.update(record.step + 1, losses))
        if record.step % settings.log_every == 0:
            _log_losses(job, means, bar, log)
        record.step += 1
        bar.advance(record.step)
        if _checkpoint_is_due(job, end):
            _settle(job, monitor, means)
            _log_losses(job, means, bar, log)
            started = _clock(job, started)
            job.state.save(job.folder, job.config)
    if record.step % job.steps_per_epoch == 0:
        job.train_step.balancer.end_epoch()
    _settle(job, monitor, means)
    _log_losses(job, means, bar, log)
    _clock(job, started)


def _settle(job: Job, monitor: LossMonitor, means: Means) -> None:
    """Nothing is validated or saved unless losses and weights are finite up to here."""
    means.add(monitor.flush())
    model = job.train_step.model
    assert isinstance(model, DenseModel)
    check_weights(model.parameter_groups(), job.state.record.step)


def _step(job: Job, batches: Sequence[Batch]) -> StepLog:
    state = job.state
    job.schedule.set(state.record.step)
    losses = job.train_step.run(batches)
    if state.ema is not None:
        state.ema.update(job.train_step.model, state.record.step)
    state.record.images += sum(len(batch) for batch in batches) * world_size()
    return losses


def _checkpoint_is_due(job: Job, end: int) -> bool:
    """Inside an epoch alone: at its end, and at the run's, validation comes before it is saved."""
    step, every = job.state.record.step, job.settings.checkpoint_steps
    validated = step == end or step % job.steps_per_epoch == 0
    return every is not None and step % every == 0 and not validated


def _clock(job: Job, started: float) -> float:
    """Add the time since `started` to the record; gives back the time now."""
    now = time.monotonic()
    job.state.record.train_seconds += now - started
    job.state.record.seconds += now - started
    return now


def _rest_of_epoch(job: Job, end: int) -> Iterator[list[Batch]]:
    """The batches of each remaining step, up to `end`, of the epoch that the record stands in."""
    epoch, done = divmod(job.state.record.step, job.steps_per_epoch)
    _start_epoch(job, epoch, done)
    batches = iter(job.train_loader)
    left = min(job.steps_per_epoch - done, end - job.state.record.step)
    for _ in range(left):
        yield [next(batches) for _ in range(job.settings.accumulate)]


def _start_epoch(job: Job, epoch: int, done: int) -> None:
    """Let the loader go on from the step that follows `done` finished ones."""
    sampler = job.train_loader.sampler
    assert isinstance(sampler, EpochSampler)
    sampler.epoch = epoch
    sampler.skip = done * job.images_per_step


def _log_losses(job: Job, means: Means, bar: ProgressBar, log: RunLog) -> None:
    losses = means.compute_and_reset()
    if not losses:
        return
    names = [task.name for task in job.train_step.tasks]
    rate = bar.report({name: losses[name] for name in names if name in losses})
    groups = job.train_step.optimizer.param_groups
    rates = {f"lr/{group['name']}": group["lr"] for group in groups}
    values = {**losses, **rates, "images_per_second": rate}
    log.scalars(job.state.record.step, "train", values)


def _log_sharing(job: Job, probe: Probe, log: RunLog) -> None:
    weights = probe.measure(job.state.evaluated)
    if weights:
        log.scalars(job.state.record.step, SHARING, weights)


class _Relating:
    """Gradient cosines on the run's first batch, the same throughout."""

    def __init__(self, job: Job) -> None:
        step = job.train_step
        assert isinstance(step.model, DenseModel)
        self._job = job
        self._relations = Relations(step.model, step.tasks, step.precision)
        _start_epoch(job, 0, 0)
        self._batch = next(iter(job.train_loader))

    def log(self, log: RunLog) -> None:
        names = [task.name for task in self._job.train_step.tasks]
        cosines = pairs_of(self._relations.cosines(self._batch), names)
        log.scalars(self._job.state.record.step, RELATIONS, cosines)


def _validate(job: Job, bar: ProgressBar, log: RunLog) -> None:
    """Score the split; keep the weights if they are the best so far."""
    started, record, tasks = time.monotonic(), job.state.record, job.tasks
    model, precision = job.state.evaluated, job.train_step.precision
    with unsharded(model):
        record.scores = evaluate(model, job.val_loader, tasks, job.protocol, precision)
    values = selection(record.scores, tasks, job.protocol)
    if is_better(values, record.best, tasks):
        save_weights(job.folder / BEST, model, job.config)
        record.best, record.best_step = values, record.step
        record.best_scores, record.best_weights = record.scores, weights_hash(model)
    flat = {
        f"{task}/{name}": value
        for task in record.scores
        for name, value in record.scores[task].items()
    }
    log.scalars(record.step, "val", flat)
    record.seconds += time.monotonic() - started
    numbers = "  ".join(
        f"{task.name} {task.selection(job.protocol)} {values[task.name]:.4g}" for task in tasks
    )
    bar.say(f"epoch {record.step / job.steps_per_epoch:g}/{job.settings.epochs}  {numbers}")


def _draw(job: Job, log: RunLog) -> None:
    predict = job.predictor(job.state.evaluated)
    picture = draw_panels(predict, job.tasks, job.val_set, job.settings.panels)
    step = job.state.record.step
    if is_first():
        write_picture(job.folder / PANELS / f"step_{step:06d}.png", picture)
    log.picture(step, PANELS, picture)

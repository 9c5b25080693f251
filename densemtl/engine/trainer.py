"""The training loop, to be read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from densemtl.config.sections import InputConfig, TrainConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EpochSampler, EvalDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.distributed.collectives import get_world_size, is_main_process
from densemtl.distributed.sharding import unsharded
from densemtl.engine.checkpoint import BEST_NAME, compute_weights_hash, save_weights
from densemtl.engine.loss_monitor import LossMonitor, RunningMeans, check_weights_finite
from densemtl.engine.model_selection import get_selection_scores, is_better
from densemtl.engine.optimizer import LRSchedule
from densemtl.engine.run_log import RELATIONS, SHARING, RunLog, open_log
from densemtl.engine.sharing_probe import SharingProbe, make_sharing_probe
from densemtl.engine.task_affinity import TaskAffinity, flatten_pairs
from densemtl.engine.train_state import TrainState
from densemtl.engine.train_step import StepLog, TrainStep
from densemtl.errors import DataError
from densemtl.evaluation.evaluate import evaluate
from densemtl.io.writers import write_image
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.progress_bar import ProgressBar
from densemtl.tasks.base import Task
from densemtl.trackers.base import RunInfo, Tracker
from densemtl.types import Batch, ProtocolName
from densemtl.visualization.prediction_panels import PredictFn, draw_panels

PANELS = "panels"


@dataclass
class TrainingRun:
    """A run, built and ready to start or to go on.

    Attributes:
        title: its name on the terminal.
        folder: where everything is written.
        config_yaml: resolved configuration (YAML), saved with the weights.
        tasks: those that are scored; the train step may learn auxiliary ones besides.
        train_step: takes the steps.
        state: what they change.
        schedule: sets the learning rate.
        train_loader: batches of the training set.
        val_loader: batches of the validation set.
        val_dataset: its samples, for pictures.
        input_config: size and fit.
        make_predict_fn: makes of a model what draws its predictions.
        protocol: which family of metrics.
        train_config: the loop's.
        trackers: what the log is shown by.
    """

    title: str
    folder: Path
    config_yaml: str
    tasks: Sequence[Task]
    train_step: TrainStep
    state: TrainState
    schedule: LRSchedule
    train_loader: ErrorForwardingDataLoader[Batch]
    val_loader: ErrorForwardingDataLoader[Batch]
    val_dataset: DenseDataset
    input_config: InputConfig
    make_predict_fn: Callable[[nn.Module], PredictFn]
    protocol: ProtocolName
    train_config: TrainConfig
    trackers: Sequence[Tracker] = ()

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.train_config.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch; what does not fill a step is left out."""
        return count_steps_per_epoch(self.train_loader, self.train_config.grad_accum_steps)

    @property
    def images_per_step(self) -> int:
        """Of all ranks together."""
        return get_global_batch_size(self.train_loader) * self.train_config.grad_accum_steps


def get_global_batch_size(loader: ErrorForwardingDataLoader[Batch]) -> int:
    """Images in a batch that all ranks share."""
    return (loader.batch_size or 1) * get_world_size()


def count_steps_per_epoch(loader: ErrorForwardingDataLoader[Batch], grad_accum_steps: int) -> int:
    """Optimiser steps an epoch.

    Raises:
        DataError: the training set is too small for a single one.
    """
    images, batch = len(loader.dataset), get_global_batch_size(loader)  # type: ignore[arg-type]
    steps = images // batch // grad_accum_steps
    if steps == 0:
        raise DataError(
            f"{images} training images do not fill one step of {grad_accum_steps} batches of "
            f"{batch}: lower train.grad_accum_steps or loader.batch_size"
        )
    return steps


def train(job: TrainingRun, max_steps: int | None = None) -> None:
    """Train from where `job.state` stands to the end, or to `max_steps` steps in all.

    After it `best.safetensors` holds the best validated weights and `last/` all that another call
    goes on from.

    Raises:
        NonFiniteLossError: a loss or weight became NaN or infinite; names it and the step.
    """
    record, end = job.state.progress, min(job.total_steps, max_steps or job.total_steps)
    title = ProgressBar(job.title, record.step, end, job.images_per_step)
    view = EvalDataset(job.val_dataset, job.input_config.size, job.input_config.fit)
    probe = make_sharing_probe(view, job.train_step.precision)
    relations = _GradientSimilarityLogger(job) if job.train_config.grad_similarity_every else None
    run = RunInfo(job.folder, job.title, yaml.safe_load(job.config_yaml), record.step)
    with open_log(run, job.trackers, title.print_line) as log, title as bar:
        if record.step == 0:
            _log_sharing(job, probe, log)
        while record.step < end:
            _train_epoch(job, end, bar, log)
            _log_sharing(job, probe, log)
            epoch = record.step // job.steps_per_epoch
            finished = record.step == end
            if relations and epoch % job.train_config.grad_similarity_every == 0:
                relations.log(log)
            if finished or epoch % job.train_config.eval_every == 0:
                _validate(job, bar, log)
            every = job.train_config.visualize_every
            if finished or (every and epoch % every == 0):
                _draw_predictions(job, log)
            job.state.save(job.folder, job.config_yaml)
            bar.reset_timer()


def _train_epoch(run: TrainingRun, end_step: int, progress_bar: ProgressBar, log: RunLog) -> None:
    """The rest of the present epoch, up to step `end_step`."""
    record, settings = run.state.progress, run.train_config
    monitor, means = (
        LossMonitor(settings.on_non_finite == "skip", progress_bar.print_line),
        RunningMeans(),
    )
    started = time.monotonic()
    for batches in _iter_rest_of_epoch(run, end_step):
        losses = _take_step(run, batches)
        means.add(monitor.update(record.step + 1, losses))
        if record.step % settings.log_every_steps == 0:
            _log_losses(run, means, progress_bar, log)
        record.step += 1
        progress_bar.advance(record.step)
        if _is_checkpoint_due(run, end_step):
            _check_finite(run, monitor, means)
            _log_losses(run, means, progress_bar, log)
            started = _add_elapsed(run, started)
            run.state.save(run.folder, run.config_yaml)
    if record.step % run.steps_per_epoch == 0:
        run.train_step.balancer.end_epoch()
    _check_finite(run, monitor, means)
    _log_losses(run, means, progress_bar, log)
    _add_elapsed(run, started)


def _check_finite(run: TrainingRun, monitor: LossMonitor, means: RunningMeans) -> None:
    """Nothing is validated or saved unless losses and weights are finite up to here."""
    means.add(monitor.flush())
    model = run.train_step.model
    assert isinstance(model, MultiTaskModel)
    check_weights_finite(model.parameter_groups(), run.state.progress.step)


def _take_step(run: TrainingRun, batches: Sequence[Batch]) -> StepLog:
    state = run.state
    run.schedule.set_lr(state.progress.step)
    losses = run.train_step.run(batches)
    if state.ema is not None:
        state.ema.update(run.train_step.model, state.progress.step)
    state.progress.images += sum(len(batch) for batch in batches) * get_world_size()
    return losses


def _is_checkpoint_due(run: TrainingRun, end_step: int) -> bool:
    """Inside an epoch alone: at its end, and at the run's, validation comes before it is saved."""
    step, every = run.state.progress.step, run.train_config.checkpoint_every_steps
    validated = step == end_step or step % run.steps_per_epoch == 0
    return every is not None and step % every == 0 and not validated


def _add_elapsed(run: TrainingRun, started: float) -> float:
    """Add the time since `started` to the record; gives back the time now."""
    now = time.monotonic()
    run.state.progress.train_seconds += now - started
    run.state.progress.seconds += now - started
    return now


def _iter_rest_of_epoch(run: TrainingRun, end_step: int) -> Iterator[list[Batch]]:
    """Yield the batches of each remaining step of the current epoch, up to `end_step`."""
    epoch, done = divmod(run.state.progress.step, run.steps_per_epoch)
    _start_epoch(run, epoch, done)
    batches = iter(run.train_loader)
    left = min(run.steps_per_epoch - done, end_step - run.state.progress.step)
    for _ in range(left):
        yield [next(batches) for _ in range(run.train_config.grad_accum_steps)]


def _start_epoch(run: TrainingRun, epoch: int, steps_done: int) -> None:
    """Let the loader go on from the step that follows `steps_done` finished ones."""
    sampler = run.train_loader.sampler
    assert isinstance(sampler, EpochSampler)
    sampler.epoch = epoch
    sampler.start_index = steps_done * run.images_per_step


def _log_losses(
    run: TrainingRun, means: RunningMeans, progress_bar: ProgressBar, log: RunLog
) -> None:
    losses = means.compute_and_reset()
    if not losses:
        return
    names = [task.name for task in run.train_step.tasks]
    rate = progress_bar.report_losses({name: losses[name] for name in names if name in losses})
    groups = run.train_step.optimizer.param_groups
    rates = {f"lr/{group['name']}": group["lr"] for group in groups}
    values = {**losses, **rates, "images_per_second": rate}
    log.log_scalars(run.state.progress.step, "train", values)


def _log_sharing(run: TrainingRun, probe: SharingProbe, log: RunLog) -> None:
    weights = probe.measure(run.state.eval_model)
    if weights:
        log.log_scalars(run.state.progress.step, SHARING, weights)


class _GradientSimilarityLogger:
    """Gradient cosines on the run's first batch, the same throughout."""

    def __init__(self, run: TrainingRun) -> None:
        step = run.train_step
        assert isinstance(step.model, MultiTaskModel)
        self._run = run
        self._task_affinity = TaskAffinity(step.model, step.tasks, step.precision)
        _start_epoch(run, 0, 0)
        self._batch = next(iter(run.train_loader))

    def log(self, log: RunLog) -> None:
        names = [task.name for task in self._run.train_step.tasks]
        cosines = flatten_pairs(self._task_affinity.compute_gradient_cosines(self._batch), names)
        log.log_scalars(self._run.state.progress.step, RELATIONS, cosines)


def _validate(run: TrainingRun, progress_bar: ProgressBar, log: RunLog) -> None:
    """Score the split; keep the weights if they are the best so far."""
    started, record, tasks = time.monotonic(), run.state.progress, run.tasks
    model, precision = run.state.eval_model, run.train_step.precision
    with unsharded(model):
        record.scores = evaluate(model, run.val_loader, tasks, run.protocol, precision)
    values = get_selection_scores(record.scores, tasks, run.protocol)
    if is_better(values, record.best_selection_scores, tasks):
        save_weights(run.folder / BEST_NAME, model, run.config_yaml)
        record.best_selection_scores, record.best_step = values, record.step
        record.best_scores, record.best_weights_hash = record.scores, compute_weights_hash(model)
    flat = {
        f"{task}/{name}": value
        for task in record.scores
        for name, value in record.scores[task].items()
    }
    log.log_scalars(record.step, "val", flat)
    record.seconds += time.monotonic() - started
    numbers = "  ".join(
        f"{task.name} {task.get_selection_metric(run.protocol)} {values[task.name]:.4g}"
        for task in tasks
    )
    progress_bar.print_line(
        f"epoch {record.step / run.steps_per_epoch:g}/{run.train_config.epochs}  {numbers}"
    )


def _draw_predictions(run: TrainingRun, log: RunLog) -> None:
    predict = run.make_predict_fn(run.state.eval_model)
    picture = draw_panels(predict, run.tasks, run.val_dataset, run.train_config.num_vis_images)
    step = run.state.progress.step
    if is_main_process():
        write_image(run.folder / PANELS / f"step_{step:06d}.png", picture)
    log.log_image(step, PANELS, picture)

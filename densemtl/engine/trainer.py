"""Training loop: epochs, validation, best weights, checkpoints and logging."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from torch import nn

from densemtl.config.input_paths import BEST_NAME
from densemtl.config.sections import InputConfig, TrainConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import EpochSampler, EvalDataset
from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.distributed.collectives import get_world_size, is_main_process
from densemtl.distributed.sharding import unsharded
from densemtl.engine.checkpoint import compute_weights_hash, save_weights
from densemtl.engine.loss_monitor import LossMonitor, RunningMeans, check_weights_finite
from densemtl.engine.model_selection import get_selection_scores, is_better
from densemtl.engine.optimizer import LRSchedule
from densemtl.engine.parameter_groups import get_group_lrs
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
"""Folder and log name of the images of predictions."""


@dataclass
class TrainingRun:
    """Run with all its components, ready to start or resume.

    Attributes:
        title: name of the run on the terminal.
        folder: the run folder, which receives all files.
        config_yaml: resolved configuration (YAML), saved with the weights.
        tasks: tasks that are evaluated; `train_step` may also train auxiliary tasks.
        train_step: the optimizer step.
        state: the state that training changes.
        schedule: the learning-rate schedule.
        train_loader: batches of the training split.
        val_loader: batches of the validation split.
        val_dataset: samples of the validation split, for images of predictions.
        input_config: the section `input` of the configuration.
        make_predict_fn: function that returns a prediction function of a model.
        protocol: name of the evaluation protocol.
        train_config: the section `train` of the configuration.
        trackers: trackers that receive the log.
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
        """Number of optimizer steps of the whole run."""
        return self.train_config.epochs * self.steps_per_epoch

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch; images that do not fill a step are left out."""
        return count_steps_per_epoch(self.train_loader, self.train_config.grad_accum_steps)

    @property
    def images_per_step(self) -> int:
        """Number of images per optimizer step, on all ranks."""
        return get_global_batch_size(self.train_loader) * self.train_config.grad_accum_steps


def get_global_batch_size(loader: ErrorForwardingDataLoader[Batch]) -> int:
    """Return the number of images per batch on all ranks.

    Args:
        loader: loader of this rank.

    Returns:
        The batch size of the loader times the number of ranks.
    """
    return (loader.batch_size or 1) * get_world_size()


def count_steps_per_epoch(loader: ErrorForwardingDataLoader[Batch], grad_accum_steps: int) -> int:
    """Return the number of optimizer steps per epoch.

    Args:
        loader: loader of the training split on this rank.
        grad_accum_steps: micro-batches per optimizer step.

    Returns:
        The number of complete steps, at least 1.

    Raises:
        DataError: if the training split is too small for one step.
    """
    images, batch = len(loader.dataset), get_global_batch_size(loader)  # type: ignore[arg-type]
    steps = images // batch // grad_accum_steps
    if steps == 0:
        raise DataError(
            f"{images} training images do not fill one step of {grad_accum_steps} batches of "
            f"{batch}: lower train.grad_accum_steps or loader.batch_size"
        )
    return steps


def train(run: TrainingRun, max_steps: int | None = None) -> None:
    """Train from the step of `run.state` to the end of the run.

    Afterwards, `best.safetensors` holds the weights of the best validation, and `last/` the
    checkpoint from which another call resumes.

    Args:
        run: the run to start or resume; its state is updated.
        max_steps: stop when this number of optimizer steps is reached, counted from the start of
            the run; None trains to the end.

    Raises:
        NonFiniteLossError: if a loss or a weight becomes NaN or infinite; names it and the step.
    """
    config, progress = run.train_config, run.state.progress
    end_step = min(run.total_steps, max_steps or run.total_steps)
    progress_bar = ProgressBar(run.title, progress.step, end_step, run.images_per_step)
    eval_dataset = EvalDataset(run.val_dataset, run.input_config.size, run.input_config.fit)
    probe = make_sharing_probe(eval_dataset, run.train_step.precision)
    similarity = _GradientSimilarityLogger(run) if config.grad_similarity_every else None
    run_info = RunInfo(run.folder, run.title, yaml.safe_load(run.config_yaml), progress.step)
    with open_log(run_info, run.trackers, progress_bar.print_line) as log, progress_bar:
        if progress.step == 0:
            _log_sharing(run, probe, log)
        while progress.step < end_step:
            _train_epoch(run, end_step, progress_bar, log)
            _log_sharing(run, probe, log)
            epoch = progress.step // run.steps_per_epoch
            finished = progress.step == end_step
            if similarity and epoch % config.grad_similarity_every == 0:
                similarity.log(log)
            if finished or epoch % config.eval_every == 0:
                _validate(run, progress_bar, log)
            if finished or (config.visualize_every and epoch % config.visualize_every == 0):
                _draw_predictions(run, log)
            run.state.save(run.folder, run.config_yaml)
            progress_bar.reset_timer()


def _train_epoch(run: TrainingRun, end_step: int, progress_bar: ProgressBar, log: RunLog) -> None:
    """Train for the rest of the current epoch, up to step `end_step`."""
    progress, config = run.state.progress, run.train_config
    monitor = LossMonitor(config.on_non_finite == "skip", progress_bar.print_line)
    means = RunningMeans()
    started = time.monotonic()
    for batches in _iter_rest_of_epoch(run, end_step):
        losses = _take_step(run, batches)
        means.add(monitor.update(progress.step + 1, losses))
        task_losses = _select_task_losses(run, means.compute())
        if progress.step % config.log_every_steps == 0:
            _log_losses(run, means, progress_bar, log)
        progress.step += 1
        progress_bar.advance(progress.step, task_losses)
        if _is_checkpoint_due(run, end_step):
            _check_finite(run, monitor, means)
            _log_losses(run, means, progress_bar, log)
            started = _add_elapsed(run, started)
            run.state.save(run.folder, run.config_yaml)
    if progress.step % run.steps_per_epoch == 0:
        run.train_step.balancer.end_epoch()
    _check_finite(run, monitor, means)
    _log_losses(run, means, progress_bar, log)
    _add_elapsed(run, started)


def _check_finite(run: TrainingRun, monitor: LossMonitor, means: RunningMeans) -> None:
    """Check losses and weights, so that only finite weights are validated and saved."""
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
    """Return whether a checkpoint is due inside an epoch.

    At the end of an epoch and of the run, the checkpoint is saved later, after validation.
    """
    step, every = run.state.progress.step, run.train_config.checkpoint_every_steps
    epoch_ends = step == end_step or step % run.steps_per_epoch == 0
    return every is not None and step % every == 0 and not epoch_ends


def _add_elapsed(run: TrainingRun, started: float) -> float:
    """Add the time since `started` to the progress, and return the current time."""
    now = time.monotonic()
    run.state.progress.train_seconds += now - started
    run.state.progress.seconds += now - started
    return now


def _iter_rest_of_epoch(run: TrainingRun, end_step: int) -> Iterator[list[Batch]]:
    """Yield the batches of each remaining step of the current epoch, up to `end_step`."""
    epoch, steps_done = divmod(run.state.progress.step, run.steps_per_epoch)
    _start_epoch(run, epoch, steps_done)
    batches = iter(run.train_loader)
    steps_left = min(run.steps_per_epoch - steps_done, end_step - run.state.progress.step)
    for _ in range(steps_left):
        yield [next(batches) for _ in range(run.train_config.grad_accum_steps)]


def _start_epoch(run: TrainingRun, epoch: int, steps_done: int) -> None:
    """Set the training sampler to an epoch and to the first image after `steps_done` steps."""
    sampler = run.train_loader.sampler
    assert isinstance(sampler, EpochSampler)
    sampler.epoch = epoch
    sampler.start_index = steps_done * run.images_per_step


def _select_task_losses(run: TrainingRun, losses: Mapping[str, float]) -> dict[str, float]:
    """Return {task: loss}, without the other logged values."""
    names = [task.name for task in run.train_step.tasks]
    return {name: losses[name] for name in names if name in losses}


def _log_losses(
    run: TrainingRun, means: RunningMeans, progress_bar: ProgressBar, log: RunLog
) -> None:
    losses = means.compute_and_reset()
    if not losses:
        return
    images_per_second = progress_bar.report_losses(_select_task_losses(run, losses))
    lrs = get_group_lrs(run.train_step.optimizer)
    values = {**losses, **lrs, "images_per_second": images_per_second}
    log.log_scalars(run.state.progress.step, "train", values)


def _log_sharing(run: TrainingRun, probe: SharingProbe, log: RunLog) -> None:
    weights = probe.measure(run.state.eval_model)
    if weights:
        log.log_scalars(run.state.progress.step, SHARING, weights)


class _GradientSimilarityLogger:
    """Logger of gradient cosines on the first batch of the run, the same in all epochs."""

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
    """Evaluate the validation split, and save the weights if they are the best so far."""
    started, progress, tasks = time.monotonic(), run.state.progress, run.tasks
    model, execution = run.state.eval_model, run.train_step.precision
    with unsharded(model):
        progress.scores = evaluate(model, run.val_loader, tasks, run.protocol, execution)
    values = get_selection_scores(progress.scores, tasks, run.protocol)
    if is_better(values, progress.best_selection_scores, tasks):
        save_weights(run.folder / BEST_NAME, model, run.config_yaml)
        progress.best_selection_scores, progress.best_step = values, progress.step
        progress.best_scores = progress.scores
        progress.best_weights_hash = compute_weights_hash(model)
    flat_scores = {
        f"{task}/{name}": value
        for task, metrics in progress.scores.items()
        for name, value in metrics.items()
    }
    log.log_scalars(progress.step, "val", flat_scores)
    progress.seconds += time.monotonic() - started
    summary = "  ".join(
        f"{task.name} {task.get_selection_metric(run.protocol)} {values[task.name]:.4g}"
        for task in tasks
    )
    progress_bar.print_line(
        f"epoch {progress.step / run.steps_per_epoch:g}/{run.train_config.epochs}  {summary}"
    )


def _draw_predictions(run: TrainingRun, log: RunLog) -> None:
    predict = run.make_predict_fn(run.state.eval_model)
    image = draw_panels(predict, run.tasks, run.val_dataset, run.train_config.num_vis_images)
    step = run.state.progress.step
    if is_main_process():
        write_image(run.folder / PANELS / f"step_{step:06d}.png", image)
    log.log_image(step, PANELS, image)

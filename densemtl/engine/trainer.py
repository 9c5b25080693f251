"""Training loop: steps, validation, checkpoints and logging."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import combinations

import yaml

from densemtl.data.batching import EvalDataset
from densemtl.distributed.collectives import get_world_size, is_main_process
from densemtl.engine.adapter_ranks import compute_mean_rank, shrink_ranks
from densemtl.engine.curriculum_probe import choose_tasks
from densemtl.engine.device_copies import copy_to_device
from densemtl.engine.early_stopping import Patience
from densemtl.engine.loss_monitor import LossMonitor, RunningMeans, check_weights_finite
from densemtl.engine.parameter_groups import get_group_lrs
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import RELATIONS, SHARING, RunLog, open_log
from densemtl.engine.sharing_probe import SharingProbe, flatten_weights, make_sharing_probe
from densemtl.engine.task_affinity import TaskAffinity, flatten_pairs
from densemtl.engine.train_batches import TrainBatches
from densemtl.engine.train_step import StepLog
from densemtl.engine.validation import is_validation_due, validate
from densemtl.io.writers import write_image
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.progress_bar import ProgressBar
from densemtl.trackers.base import RunInfo
from densemtl.types import Batch
from densemtl.visualization.prediction_panels import draw_panels

PANELS = "panels"
"""Folder and log name of the images of predictions."""


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
        OutputError: if a file of the run cannot be written. For a checkpoint that is written in the
            background, this is raised before the next step.
    """
    config, progress = run.train_config, run.state.progress
    end_step = min(run.total_steps, max_steps or run.total_steps)
    progress_bar = ProgressBar(run.title, progress.step, end_step, run.images_per_step)
    eval_dataset = EvalDataset(run.val_dataset, run.input_config.size, run.input_config.fit)
    probe = make_sharing_probe(eval_dataset, run.train_step.precision)
    batches = TrainBatches(run)
    similarity = None
    if config.grad_similarity_every:
        similarity = _GradientSimilarityLogger(run, next(batches.iterate(0, 0, 1))[0])
    run_info = RunInfo(run.folder, run.title, yaml.safe_load(run.config_yaml), progress.step)
    writing = run.checkpoint_writer.running(progress_bar.print_line)
    with open_log(run_info, run.trackers, progress_bar.print_line) as log, progress_bar, writing:
        if progress.step == 0:
            _log_sharing(run, probe, log)
        _begin_extension(run)
        while progress.step < end_step and not progress.stop_reason:
            _begin_phase(run, batches, progress_bar)
            stop = _find_next_stop(run, end_step)
            steps = _iter_steps(run, batches, stop, read_ahead=stop < end_step)
            _train_until(run, stop, steps, progress_bar, log)
            _log_sharing(run, probe, log)
            finished = progress.step == end_step
            if similarity and _is_epoch_due(run, config.grad_similarity_every, finished):
                similarity.log(log)
            if finished or is_validation_due(run):
                validate(run, progress_bar, log)
            finished = finished or bool(progress.stop_reason)
            if finished or _is_epoch_due(run, config.visualize_every):
                _draw_predictions(run, log)
            _save_checkpoint(run, log)
            _begin_extension(run)
            progress_bar.reset_timer()


def _begin_extension(run: TrainingRun) -> None:
    """Forget that the training ended early if an extension begins after the current step."""
    progress = run.state.progress
    if progress.step in run.extension_starts:
        progress.stop_reason, progress.patience = "", Patience()


def _begin_phase(run: TrainingRun, batches: TrainBatches, progress_bar: ProgressBar) -> None:
    """Select the tasks of a curriculum if a phase begins with the next step."""
    curriculum = run.state.curriculum
    if curriculum is None:
        return

    def choose(candidates: Sequence[str], count: int) -> list[str]:
        steps = curriculum.config.probe_steps
        progress_bar.print_line(f"curriculum: trying {', '.join(candidates)}, {steps} steps each")
        epoch = partial(batches.iterate, 0, 0, run.steps_per_epoch)
        return choose_tasks(run, curriculum.config, candidates, count, epoch)

    if curriculum.begin_phase(run.state.progress.step, choose):
        step, names = run.state.progress.step, ", ".join(curriculum.active_tasks)
        progress_bar.print_line(f"curriculum: from step {step}, training {names}")
        progress_bar.reset_timer()
    run.train_step.balancer.set_active(curriculum.active)


def _find_next_stop(run: TrainingRun, end_step: int) -> int:
    """Return the next validation, start of a phase or end of an epoch, at most `end_step`."""
    step = run.state.progress.step
    lengths = (run.steps_per_epoch, run.train_config.eval_every_steps or run.steps_per_epoch)
    starts = [start for start in run.extension_starts if start > step]
    if run.state.curriculum is not None:
        starts += [start for start in run.state.curriculum.starts if start > step]
    return min(end_step, *starts, *((step // n + 1) * n for n in lengths))


def _is_epoch_due(run: TrainingRun, every: int, inside: bool = False) -> bool:
    """Return whether an epoch ends whose number is a multiple of `every`; 0 is never.

    With `inside`, the number of finished epochs counts also inside an epoch.
    """
    epoch, rest = divmod(run.state.progress.step, run.steps_per_epoch)
    return every > 0 and epoch % every == 0 and (inside or rest == 0)


def _iter_steps(
    run: TrainingRun, batches: TrainBatches, stop: int, read_ahead: bool
) -> Iterator[Sequence[Batch]]:
    """Return the batches of each step up to `stop`, on the device of the model."""
    step = run.state.progress.step
    epoch, steps_done = divmod(step, run.steps_per_epoch)
    steps = batches.iterate(epoch, steps_done, stop - step, read_ahead=read_ahead)
    return copy_to_device(steps, run.train_step.precision.device)


def _train_until(
    run: TrainingRun,
    stop: int,
    steps: Iterator[Sequence[Batch]],
    progress_bar: ProgressBar,
    log: RunLog,
) -> None:
    """Train up to step `stop`, which is in the current epoch or at its end."""
    progress, config = run.state.progress, run.train_config
    monitor = LossMonitor(config.on_non_finite == "skip", progress_bar.print_line)
    means = RunningMeans(_list_absent_at_zero(run))
    started = time.monotonic()
    for batches in steps:
        run.checkpoint_writer.check()
        losses = _take_step(run, batches)
        means.add(monitor.update(progress.step + 1, losses))
        task_losses = _select_task_losses(run, means.compute())
        if progress.step % config.log_every_steps == 0:
            _log_losses(run, means, progress_bar, log)
        progress.step += 1
        progress_bar.advance(progress.step, task_losses)
        if _is_checkpoint_due(run, stop):
            _check_finite(run, monitor, means)
            _log_losses(run, means, progress_bar, log)
            started = _add_elapsed(run, started)
            _save_checkpoint(run, log)
    if progress.step % run.steps_per_epoch == 0:
        run.train_step.balancer.end_epoch()
        shrink_ranks(run.train_step.model)
    _check_finite(run, monitor, means)
    _log_losses(run, means, progress_bar, log)
    _add_elapsed(run, started)


def _list_absent_at_zero(run: TrainingRun) -> list[str]:
    """List the logged values that are 0 if no image of a step has a label of a task."""
    names = [task.name for task in run.train_step.tasks]
    pairs = combinations(names, 2)
    return [*names, *(f"norm/{name}" for name in names), *(f"cosine/{a}~{b}" for a, b in pairs)]


def _check_finite(run: TrainingRun, monitor: LossMonitor, means: RunningMeans) -> None:
    """Check losses and weights, so that only finite weights are validated and saved."""
    means.add(monitor.flush())
    model = run.train_step.model
    assert isinstance(model, MultiTaskModel)
    check_weights_finite(model.parameter_groups(), run.state.progress.step)


def _take_step(run: TrainingRun, batches: Sequence[Batch]) -> StepLog:
    state = run.state
    run.schedule.set_lr(state.progress.step)
    if state.curriculum is not None:
        state.curriculum.set_step(state.progress.step)
    losses = run.train_step.run(batches)
    if state.relationship is not None:
        state.relationship.update(state.progress.step + 1)
    if state.ema is not None:
        state.ema.update(run.train_step.model, state.progress.step)
    state.progress.images += sum(len(batch) for batch in batches) * get_world_size()
    return losses


def _is_checkpoint_due(run: TrainingRun, stop: int) -> bool:
    """Return whether a checkpoint is due before `stop`, where it is saved after validation."""
    step, every = run.state.progress.step, run.train_config.checkpoint_every_steps
    return every is not None and step % every == 0 and step != stop


def _save_checkpoint(run: TrainingRun, log: RunLog) -> None:
    seconds = run.checkpoint_writer.save(run.state, run.folder, run.config_yaml)
    log.log_scalars(run.state.progress.step, "checkpoint", {"seconds": seconds})


def _add_elapsed(run: TrainingRun, started: float) -> float:
    """Add the time since `started` to the progress, and return the current time."""
    now = time.monotonic()
    run.state.progress.train_seconds += now - started
    run.state.progress.seconds += now - started
    return now


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
    values.update(compute_mean_rank(run.train_step.model))
    log.log_scalars(run.state.progress.step, "train", values)


def _log_sharing(run: TrainingRun, probe: SharingProbe, log: RunLog) -> None:
    weights = probe.measure(run.state.eval_model)
    if run.state.relationship is not None:
        weights |= flatten_weights(run.state.relationship.compute_correlations())
    if weights:
        log.log_scalars(run.state.progress.step, SHARING, weights)


class _GradientSimilarityLogger:
    """Logger of gradient cosines on the first batch of the run, the same in all epochs."""

    def __init__(self, run: TrainingRun, batch: Batch) -> None:
        step = run.train_step
        assert isinstance(step.model, MultiTaskModel)
        self._run, self._batch = run, batch
        self._task_affinity = TaskAffinity(step.model, step.tasks, step.precision)

    def log(self, log: RunLog) -> None:
        names = [task.name for task in self._run.train_step.tasks]
        cosines = flatten_pairs(self._task_affinity.compute_gradient_cosines(self._batch), names)
        log.log_scalars(self._run.state.progress.step, RELATIONS, cosines)


def _draw_predictions(run: TrainingRun, log: RunLog) -> None:
    predict = run.make_predict_fn(run.state.eval_model)
    image = draw_panels(predict, run.tasks, run.val_dataset, run.train_config.num_vis_images)
    step = run.state.progress.step
    if is_main_process():
        write_image(run.folder / PANELS / f"step_{step:06d}.png", image)
    log.log_image(step, PANELS, image)

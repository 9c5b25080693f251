"""Validation during training: best weights, early stopping and the log."""

from __future__ import annotations

import time
from collections.abc import Mapping

from densemtl.config.input_paths import BEST_NAME
from densemtl.distributed.sharding import unsharded
from densemtl.engine.early_stopping import update_patience
from densemtl.engine.model_selection import compute_mean_gain, get_selection_scores
from densemtl.engine.run_components import TrainingRun
from densemtl.engine.run_log import RunLog
from densemtl.engine.weights_file import compute_weights_hash, save_weights
from densemtl.evaluation.evaluate import evaluate
from densemtl.runtime.progress_bar import ProgressBar


def is_validation_due(run: TrainingRun) -> bool:
    """Return whether the configuration plans a validation after the current step.

    Args:
        run: the run; its end and the beginning of an extension are always validated.

    Returns:
        True if a validation is due.
    """
    config, step = run.train_config, run.state.progress.step
    if step in (run.total_steps, *run.extension_starts):
        return True
    if config.eval_every_steps is not None:
        return step % config.eval_every_steps == 0
    epoch, rest = divmod(step, run.steps_per_epoch)
    return rest == 0 and epoch % config.eval_every == 0


def validate(run: TrainingRun, progress_bar: ProgressBar, log: RunLog) -> None:
    """Evaluate the validation split, and save the weights if they are the best so far.

    Args:
        run: the run, whose progress is updated, with the reason if training should end.
        progress_bar: prints a line with the scores.
        log: receives all metrics.
    """
    started, progress, tasks = time.monotonic(), run.state.progress, run.tasks
    model, execution = run.state.eval_model, run.train_step.precision
    with unsharded(model):
        sets = run.val_dataset.task_sets
        progress.scores = evaluate(
            model, run.val_loader, tasks, run.protocol, execution, task_sets=sets
        )
    values = get_selection_scores(progress.scores, tasks, run.protocol)
    if compute_mean_gain(values, progress.best_selection_scores, tasks) > 0:
        run.checkpoint_writer.wait()  # the best weights are at most one checkpoint ahead of `last/`
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
    progress_bar.print_line(f"{_format_position(run)}  {_format_scores(run, values)}")
    _check_early_stopping(run, values, progress_bar)


def _check_early_stopping(
    run: TrainingRun, values: Mapping[str, float], progress_bar: ProgressBar
) -> None:
    """Set the reason to end the training; a validation that is not planned does not count.

    A run that is stopped by `--max-steps` is validated once more than an uninterrupted run, but
    must end at the same step.
    """
    progress, config = run.state.progress, run.train_config.early_stopping
    if config is None or not is_validation_due(run) or progress.step == run.total_steps:
        return
    scores = dict(values)
    progress.stop_reason = update_patience(
        progress.patience, config, scores, progress.step, run.tasks
    )
    if progress.stop_reason:
        progress_bar.print_line(f"training ends early: {progress.stop_reason}")


def _format_position(run: TrainingRun) -> str:
    step, config = run.state.progress.step, run.train_config
    if config.steps is not None:
        return f"step {step}/{run.total_steps}"
    return f"epoch {step / run.steps_per_epoch:g}/{run.total_steps / run.steps_per_epoch:g}"


def _format_scores(run: TrainingRun, values: Mapping[str, float]) -> str:
    return "  ".join(
        f"{task.name} {task.get_selection_metric(run.protocol)} {values[task.name]:.4g}"
        for task in run.tasks
    )

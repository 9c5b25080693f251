"""Extension of a finished run by further epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from densemtl.config.experiment import ExperimentConfig, parse_saved_experiment
from densemtl.config.input_paths import CONFIG
from densemtl.config.sections import ExtensionConfig
from densemtl.engine.train_state import read_progress
from densemtl.errors import ConfigError, ResultsError
from densemtl.results.results import RESULTS_FILE, EarlierResult, Results, load_results

MAX_LR_FACTOR = 10
"""Maximum of `--extend-lr`."""


@dataclass(frozen=True)
class Extension:
    """Request to extend a finished run.

    Attributes:
        epochs: number of further epochs.
        lr_factor: factor of the learning rates of the schedule, which starts again.
    """

    epochs: int
    lr_factor: float = 1.0


def make_extension(epochs: int | None, lr_factor: float | None = None) -> Extension | None:
    """Check and combine the options `--extend` and `--extend-lr`.

    Args:
        epochs: number of further epochs; None extends nothing.
        lr_factor: factor of the learning rates; None is 1.

    Returns:
        The request; None if nothing is extended.

    Raises:
        ConfigError: if a number is out of range, or a factor is given without a number of epochs.
    """
    if epochs is None:
        if lr_factor is not None:
            raise ConfigError("--extend-lr: only with --extend N")
        return None
    if epochs < 1:
        raise ConfigError(f"--extend: must be at least 1 epoch, not {epochs}")
    factor = 1.0 if lr_factor is None else lr_factor
    if not 0 < factor <= MAX_LR_FACTOR:
        raise ConfigError(
            f"--extend-lr: must be more than 0 and at most {MAX_LR_FACTOR}, not {factor:g}"
        )
    return Extension(epochs, factor)


def extend_experiment(
    experiment: ExperimentConfig, folder: Path, extension: Extension
) -> ExperimentConfig:
    """Add an extension to the experiment of a finished run.

    Nothing is written. An extension that was started before and not finished is continued.

    Args:
        experiment: the experiment of the run; it is compared with the saved one later.
        folder: the run folder.
        extension: the request.

    Returns:
        The experiment with all extensions of the run in `train.extensions`.

    Raises:
        ConfigError: if the folder holds no run, or one that is not finished.
        CheckpointError: if its checkpoint is corrupt.
    """
    file = folder / CONFIG
    progress = read_progress(folder) if file.exists() else None
    if progress is None:
        raise ConfigError(f"--extend: {folder}: no run to extend; train it without --extend first")
    saved = parse_saved_experiment(file.read_text(encoding="utf-8", errors="replace"), file)
    earlier = saved.train.extensions
    results = _load_earlier(folder)
    if results is None or not results.complete or not _belongs_to(results, saved):
        _check_same(earlier, extension, folder)
        return experiment.with_train(extensions=earlier)
    new = ExtensionConfig(
        start_step=progress.step, epochs=extension.epochs, lr_factor=extension.lr_factor
    )
    return experiment.with_train(extensions=(*earlier, new))


def add_history(results: Results, experiment: ExperimentConfig, folder: Path) -> Results:
    """Add the earlier results of an extended run to its new results.

    Args:
        results: the new results.
        experiment: the experiment of the run.
        folder: the run folder, with the earlier results.

    Returns:
        A copy with `history`; the same results if the run has no extension.
    """
    extensions, earlier = experiment.train.extensions, _load_earlier(folder)
    if not extensions or earlier is None:
        return results
    history = earlier.history
    if earlier.config_hash != results.config_hash and len(history) < len(extensions):
        steps = extensions[len(history)].start_step
        history = [*history, _summarize(earlier, steps)]
    return results.model_copy(update={"history": history})


def describe_shorter_baselines(experiment: ExperimentConfig) -> list[str]:
    """Describe the comparison of an extended run with baselines that are not extended.

    Args:
        experiment: the experiment of a run with baselines.

    Returns:
        A line; empty if the run has no extension, or if the user chose its baselines.
    """
    if experiment.baselines != "auto":
        return []
    epochs = sum(extension.epochs for extension in experiment.train.extensions)
    text = f"Delta_m: this run was extended by {epochs} epochs, its single-task baselines were not"
    return [text] if epochs else []


def _load_earlier(folder: Path) -> Results | None:
    try:
        return load_results(folder / RESULTS_FILE)
    except ResultsError:  # missing or corrupt; they are written again
        return None


def _belongs_to(results: Results, experiment: ExperimentConfig) -> bool:
    return results.config_hash == experiment.compute_config_hash()


def _check_same(earlier: tuple[ExtensionConfig, ...], extension: Extension, folder: Path) -> None:
    """Check that an unfinished run is an extension as requested.

    Raises:
        ConfigError: if it is not.
    """
    if not earlier:
        raise ConfigError(
            f"--extend: the run in {folder} is not finished; finish it without --extend first"
        )
    epochs, factor = earlier[-1].epochs, earlier[-1].lr_factor
    if (epochs, factor) != (extension.epochs, extension.lr_factor):
        raise ConfigError(
            f"--extend: the extension of {folder} by {epochs} epochs is not finished; finish it"
            f" first, by --extend {epochs} --extend-lr {factor:g}"
        )


def _summarize(results: Results, steps: int) -> EarlierResult:
    return EarlierResult(
        steps=steps,
        step=results.step,
        metrics={task: result.metrics for task, result in results.tasks.items()},
        delta_m=results.delta_m,
        weights_hash=results.weights_hash,
        config_hash=results.config_hash,
        seconds=results.seconds,
    )

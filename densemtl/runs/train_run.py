"""A whole run: its single-task references, training, results and table, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from densemtl.config.experiment import CONFIG, ExperimentConfig, parse_saved_experiment
from densemtl.data.dataloader import translate_worker_errors
from densemtl.distributed.collectives import barrier, is_main_process
from densemtl.engine.final_metrics import compute_final_metrics
from densemtl.engine.run_log import LOG_FILE, RELATIONS, SHARING, read_log
from densemtl.engine.trainer import train
from densemtl.errors import ConfigError
from densemtl.factory import (
    Splits,
    build_auxiliary_tasks,
    build_balancer,
    build_splits,
    build_tasks,
    build_trackers,
)
from densemtl.io.atomic import atomic_write
from densemtl.results.results import (
    BASELINES,
    RESULTS_FILE,
    ComparisonKey,
    Results,
    add_baselines,
    load_baselines,
)
from densemtl.runs.initial_model import InitialModel, build_initial_model
from densemtl.runs.record import build_results
from densemtl.runs.training_run import build_training_run
from densemtl.runs.warm_start import require_task_networks, warm_start
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.runtime.versions import get_versions
from densemtl.visualization.matrix_history import plot_matrix_history
from densemtl.visualization.training_curves import plot_balancing, plot_training_curves

CURVES_FILE = "curves.png"
BALANCING_FILE = "balancing.png"


@translate_worker_errors()
def train_experiment(
    experiment: ExperimentConfig,
    folder: Path,
    device: str | None = None,
    max_steps: int | None = None,
) -> Results:
    """Train, or go on with, an experiment and the single-task runs it is to be compared with.

    Args:
        experiment: what to train.
        folder: of the run; references go beside it, to `baselines/`.
        device: "cpu", "cuda" ..; None for a GPU where there is one.
        max_steps: optimiser steps after which each run stops, to be gone on with later.

    Raises:
        UserError: whatever the user can mend; the folder keeps all that was done.
    """
    get_versions()
    precision = make_execution_config(experiment.train, device)
    initial = _prepare(experiment)
    splits = build_splits(experiment)
    singles = _train_baselines(experiment, splits, folder.parent, precision, max_steps)
    start = _resolve_init_from(experiment, singles)
    results = _train_run(experiment, splits, folder, precision, max_steps, initial, start)
    if singles:
        results = add_baselines(results, singles)
        if is_main_process():
            results.save(folder / RESULTS_FILE)
    return results


def _prepare(experiment: ExperimentConfig) -> InitialModel:
    """Build the model, and check all that can fail before hours of single-task runs."""
    tasks = build_tasks(experiment)
    initial = build_initial_model(experiment, tasks)
    learnt = [*tasks, *build_auxiliary_tasks(experiment)]
    build_balancer(experiment, learnt).validate_model(initial.model)
    build_trackers(experiment)
    if isinstance(experiment.init_from, dict):
        warm_start(initial.model, experiment.init_from)
    elif experiment.init_from == "baselines":
        require_task_networks(initial.model)
    return initial


def _train_baselines(
    experiment: ExperimentConfig,
    splits: Splits,
    parent_dir: Path,
    execution: ExecutionConfig,
    max_steps: int | None,
) -> Mapping[str, Path]:
    """{task: run folder or results file}; those that are missing are trained here first."""
    if experiment.baselines == "none":
        return {}
    if isinstance(experiment.baselines, dict):
        load_baselines(_make_comparison_key(experiment, splits, max_steps), experiment.baselines)
        return experiment.baselines
    folders = {}
    for name in experiment.list_task_names():
        single = experiment.to_single_task(name)
        data = splits if experiment.loader.cache == "memory" else build_splits(single)
        folder = (
            parent_dir
            / BASELINES
            / f"{experiment.data.name}-{name}-{_make_baseline_key(single, data)}"
        )
        initial = build_initial_model(single, build_tasks(single))
        _train_run(single, data, folder, execution, max_steps, initial)
        folders[name] = folder
    return folders


def _resolve_init_from(
    experiment: ExperimentConfig, baseline_runs: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return {task: single-task run whose weights its network still has to be given}.

    Raises:
        ConfigError: to start from baselines there must be some.
    """
    if experiment.init_from != "baselines":
        return {}
    if not baseline_runs:
        raise ConfigError("init_from: baselines: there are none; set baselines=auto, or name runs")
    return baseline_runs


def _make_comparison_key(
    experiment: ExperimentConfig, splits: Splits, max_steps: int | None
) -> ComparisonKey:
    """What given references are held against before hours are spent on training."""
    protocol = experiment.protocol
    return ComparisonKey(
        protocol=protocol,
        dataset=experiment.data.name,
        split_fingerprint=splits.val.fingerprint(),
        backbone=experiment.backbone.name,
        primary_metrics={
            task.name: task.get_primary_metric(protocol) for task in build_tasks(experiment)
        },
        complete=max_steps is None,
    )


def _make_baseline_key(experiment: ExperimentConfig, splits: Splits) -> str:
    """Hash of what a run learns from and how, so that an equal one need not be repeated."""
    images = f"{splits.train.fingerprint()[:4]}{splits.val.fingerprint()[:4]}"
    return f"{experiment.compute_config_hash()}-{images}"


def _train_run(
    experiment: ExperimentConfig,
    splits: Splits,
    folder: Path,
    execution: ExecutionConfig,
    max_steps: int | None,
    initial: InitialModel,
    init_from: Mapping[str, Path] | None = None,
) -> Results:
    _reserve_run_dir(folder, experiment)
    job = build_training_run(experiment, splits, folder, execution, init_from, initial)
    train(job, max_steps)
    compute_final_metrics(job)
    results = build_results(experiment, splits, job, initial.gflop)
    if is_main_process():
        _write_outputs(results, folder)
    barrier()
    return results


def _write_outputs(results: Results, folder: Path) -> None:
    results.save(folder / RESULTS_FILE)
    lines = read_log(folder / LOG_FILE)
    courses = {name: result.validation_metric for name, result in results.tasks.items()}
    plot_training_curves(folder / CURVES_FILE, lines, courses)
    plot_balancing(folder / BALANCING_FILE, lines)
    for kind in (SHARING, RELATIONS):
        plot_matrix_history(folder / f"{kind}.png", lines, kind)


def _reserve_run_dir(folder: Path, experiment: ExperimentConfig) -> None:
    """Save the configuration, unless the folder holds another experiment.

    Raises:
        ConfigError: it does; names the values that differ.
    """
    file = folder / CONFIG
    if file.exists():
        theirs = parse_saved_experiment(file.read_text(encoding="utf-8", errors="replace"), file)
        different = list(
            _find_differences(theirs.to_semantic_dict(), experiment.to_semantic_dict())
        )
        if different:
            raise ConfigError(
                f"{folder}: holds another experiment; {'; '.join(different[:4])}: "
                f"choose another --output, or remove the folder"
            )
    if is_main_process():
        with atomic_write(file) as tmp_path:
            tmp_path.write_text(experiment.to_yaml(), encoding="utf-8")


def _find_differences(saved: Any, current: Any, path: str = "") -> Iterator[str]:
    if isinstance(saved, dict) and isinstance(current, dict):
        for key in sorted({*saved, *current}):
            yield from _find_differences(
                saved.get(key), current.get(key), f"{path}.{key}".lstrip(".")
            )
    elif saved != current:
        yield f"{path} is {saved} there, {current} here"

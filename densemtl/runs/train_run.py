"""A whole run: its single-task references, training, results and table, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from densemtl.config.experiment import CONFIG, ExperimentConfig, parse_saved_experiment
from densemtl.data.dataloader import translate_worker_errors
from densemtl.distributed.collectives import barrier, get_world_size, is_main_process
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.engine.final_metrics import compute_final_metrics
from densemtl.engine.optimizer import LRSchedule, make_optimizer
from densemtl.engine.run_log import LOG_FILE, RELATIONS, SHARING, read_log
from densemtl.engine.sharding import apply_fsdp, check_fsdp_compatible
from densemtl.engine.train_state import TrainState, make_ema
from densemtl.engine.train_step import TrainStep
from densemtl.engine.trainer import TrainingRun, count_steps_per_epoch, train
from densemtl.errors import ConfigError
from densemtl.factory import (
    Splits,
    build_auxiliary_tasks,
    build_balancer,
    build_eval_loader,
    build_splits,
    build_tasks,
    build_trackers,
    build_train_loader,
)
from densemtl.inference.predictor import Predictor
from densemtl.io.atomic import atomic_write
from densemtl.models.activation_checkpointing import enable_grad_checkpointing
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
from densemtl.runs.warm_start import require_task_networks, warm_start
from densemtl.runtime.execution import ExecutionConfig, make_execution_config
from densemtl.runtime.rng_state import set_rng_state
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


def build_training_run(
    experiment: ExperimentConfig,
    splits: Splits,
    folder: Path,
    execution: ExecutionConfig,
    init_from: Mapping[str, Path] | None = None,
    initial: InitialModel | None = None,
) -> TrainingRun:
    """Build a run's parts, and restore what an earlier call left in its folder.

    Args:
        experiment: what to train.
        splits: its data.
        folder: of the run.
        execution: where and how it runs.
        init_from: {task: single-task run} that networks of one task each start from.
        initial: the experiment's model, if it was built before.
    """
    settings, pin = experiment.train, execution.device.type == "cuda"
    tasks = build_tasks(experiment)
    learnt = [*tasks, *build_auxiliary_tasks(experiment)]
    train_loader = build_train_loader(experiment, splits.train, learnt, pin)
    steps_per_epoch = count_steps_per_epoch(train_loader, settings.grad_accum_steps)
    initial = initial or build_initial_model(experiment, tasks)
    set_rng_state(initial.rng_state)
    model = initial.model
    if init_from:
        warm_start(model, init_from)
    if settings.grad_checkpointing:
        enable_grad_checkpointing(model)
    execution.to_device(model)
    if settings.compile:
        model.compile()
    balancer = build_balancer(experiment, learnt).to(execution.device)
    average = make_ema(model, settings)
    if get_world_size() > 1:
        convert_sync_batchnorm(model)
        if settings.fsdp:
            check_fsdp_compatible(settings, balancer)
            apply_fsdp(model)
            if average is not None:
                apply_fsdp(average.module)
    optimizer = make_optimizer(experiment.optim, model.parameter_groups(), balancer)
    scaler = torch.amp.GradScaler(execution.device.type, enabled=settings.amp == "fp16")
    state = TrainState(model, average, optimizer, balancer, scaler)
    state.restore(folder)
    return TrainingRun(
        title=_make_title(experiment),
        folder=folder,
        config_yaml=experiment.to_yaml(),
        tasks=tasks,
        train_step=TrainStep(model, learnt, balancer, optimizer, execution, settings, scaler),
        state=state,
        schedule=LRSchedule(experiment.schedule, optimizer, settings.epochs, steps_per_epoch),
        train_loader=train_loader,
        val_loader=build_eval_loader(experiment, splits.val, tasks, pin),
        val_dataset=splits.val,
        input_config=experiment.input,
        make_predict_fn=lambda of: Predictor(of, tasks, experiment.input, device=execution),
        protocol=experiment.protocol,
        train_config=settings,
        trackers=build_trackers(experiment),
    )


def _make_title(experiment: ExperimentConfig) -> str:
    names = "+".join(experiment.list_task_names())
    return f"{experiment.decoder.name} {names}"

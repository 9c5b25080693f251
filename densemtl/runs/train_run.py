"""A whole run: its single-task references, training, results and table, in one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from densemtl.io.atomic import replacing
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
from densemtl.config.experiment import CONFIG, Experiment, read_saved
from densemtl.visualization.training_curves import draw_balancing, draw_curves
from densemtl.data.dataloader import told_if_killed
from densemtl.distributed.collectives import is_first, wait, world_size
from densemtl.evaluation.final_metrics import score_best
from densemtl.distributed.sharding import check_shard, shard
from densemtl.engine.run_log import LOG, RELATIONS, SHARING, read_log
from densemtl.engine.optimizer import Schedule, make_optimizer
from densemtl.runtime.execution import Precision, make_precision
from densemtl.runtime.rng_state import set_random_state
from densemtl.engine.train_state import TrainState, make_average
from densemtl.engine.trainer import Job, count_steps, train
from densemtl.engine.train_step import TrainStep
from densemtl.errors import ConfigError
from densemtl.visualization.matrix_history import draw_course
from densemtl.inference.predictor import Predictor
from densemtl.runs.initial_model import InitialModel, build_initial_model
from densemtl.distributed.sync_batch_norm import join_norms
from densemtl.models.activation_checkpointing import recompute_blocks
from densemtl.runs.record import record_run
from densemtl.results.results import (
    BASELINES,
    RESULTS,
    Results,
    Terms,
    compare,
    load_references,
    versions,
)
from densemtl.runs.warm_start import own_networks, warm_start

CURVES = "curves.png"
BALANCING = "balancing.png"


@told_if_killed()
def run(
    experiment: Experiment, folder: Path, device: str | None = None, max_steps: int | None = None
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
    versions()
    precision = make_precision(experiment.train, device)
    initial = _prepare(experiment)
    splits = build_splits(experiment)
    singles = _single_task_runs(experiment, splits, folder.parent, precision, max_steps)
    start = _starting_points(experiment, singles)
    results = _train(experiment, splits, folder, precision, max_steps, initial, start)
    if singles:
        results = compare(results, singles)
        if is_first():
            results.save(folder / RESULTS)
    return results


def _prepare(experiment: Experiment) -> InitialModel:
    """Build the model, and check all that can fail before hours of single-task runs."""
    tasks = build_tasks(experiment)
    initial = build_initial_model(experiment, tasks)
    learnt = [*tasks, *build_auxiliary_tasks(experiment)]
    build_balancer(experiment, learnt).validate_model(initial.model)
    build_trackers(experiment)
    if isinstance(experiment.init_from, dict):
        warm_start(initial.model, experiment.init_from)
    elif experiment.init_from == "baselines":
        own_networks(initial.model)
    return initial


def _single_task_runs(
    experiment: Experiment,
    splits: Splits,
    beside: Path,
    precision: Precision,
    max_steps: int | None,
) -> Mapping[str, Path]:
    """{task: run folder or results file}; those that are missing are trained here first."""
    if experiment.baselines == "none":
        return {}
    if isinstance(experiment.baselines, dict):
        load_references(_terms(experiment, splits, max_steps), experiment.baselines)
        return experiment.baselines
    folders = {}
    for name in experiment.task_names():
        single = experiment.single_task(name)
        data = splits if experiment.loader.cache == "memory" else build_splits(single)
        folder = beside / BASELINES / f"{experiment.data.name}-{name}-{_identity(single, data)}"
        initial = build_initial_model(single, build_tasks(single))
        _train(single, data, folder, precision, max_steps, initial)
        folders[name] = folder
    return folders


def _starting_points(experiment: Experiment, singles: Mapping[str, Path]) -> Mapping[str, Path]:
    """Return {task: single-task run whose weights its network still has to be given}.

    Raises:
        ConfigError: to start from baselines there must be some.
    """
    if experiment.init_from != "baselines":
        return {}
    if not singles:
        raise ConfigError("init_from: baselines: there are none; set baselines=auto, or name runs")
    return singles


def _terms(experiment: Experiment, splits: Splits, max_steps: int | None) -> Terms:
    """What given references are held against before hours are spent on training."""
    protocol = experiment.protocol
    return Terms(
        protocol=protocol,
        dataset=experiment.data.name,
        split_fingerprint=splits.val.fingerprint(),
        backbone=experiment.backbone.name,
        metrics={task.name: task.primary(protocol) for task in build_tasks(experiment)},
        complete=max_steps is None,
    )


def _identity(experiment: Experiment, splits: Splits) -> str:
    """Hash of what a run learns from and how, so that an equal one need not be repeated."""
    images = f"{splits.train.fingerprint()[:4]}{splits.val.fingerprint()[:4]}"
    return f"{experiment.fingerprint()}-{images}"


def _train(
    experiment: Experiment,
    splits: Splits,
    folder: Path,
    precision: Precision,
    max_steps: int | None,
    initial: InitialModel,
    start: Mapping[str, Path] | None = None,
) -> Results:
    _claim(folder, experiment)
    job = make_job(experiment, splits, folder, precision, start, initial)
    train(job, max_steps)
    score_best(job)
    results = record_run(experiment, splits, job, initial.gflop)
    if is_first():
        _write(results, folder)
    wait()
    return results


def _write(results: Results, folder: Path) -> None:
    results.save(folder / RESULTS)
    lines = read_log(folder / LOG)
    courses = {name: result.course for name, result in results.tasks.items()}
    draw_curves(folder / CURVES, lines, courses)
    draw_balancing(folder / BALANCING, lines)
    for kind in (SHARING, RELATIONS):
        draw_course(folder / f"{kind}.png", lines, kind)


def _claim(folder: Path, experiment: Experiment) -> None:
    """Save the configuration, unless the folder holds another experiment.

    Raises:
        ConfigError: it does; names the values that differ.
    """
    file = folder / CONFIG
    if file.exists():
        theirs = read_saved(file.read_text(encoding="utf-8", errors="replace"), file)
        different = list(_differences(theirs.material(), experiment.material()))
        if different:
            raise ConfigError(
                f"{folder}: holds another experiment; {'; '.join(different[:4])}: "
                f"choose another --output, or remove the folder"
            )
    if is_first():
        with replacing(file) as draft:
            draft.write_text(experiment.to_yaml(), encoding="utf-8")


def _differences(theirs: Any, ours: Any, path: str = "") -> Iterator[str]:
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in sorted({*theirs, *ours}):
            yield from _differences(theirs.get(key), ours.get(key), f"{path}.{key}".lstrip("."))
    elif theirs != ours:
        yield f"{path} is {theirs} there, {ours} here"


def make_job(
    experiment: Experiment,
    splits: Splits,
    folder: Path,
    precision: Precision,
    start: Mapping[str, Path] | None = None,
    initial: InitialModel | None = None,
) -> Job:
    """Build a run's parts, and restore what an earlier call left in its folder.

    Args:
        experiment: what to train.
        splits: its data.
        folder: of the run.
        precision: where and how it runs.
        start: {task: single-task run} that networks of one task each start from.
        initial: the experiment's model, if it was built before.
    """
    settings, pin = experiment.train, precision.device.type == "cuda"
    tasks = build_tasks(experiment)
    learnt = [*tasks, *build_auxiliary_tasks(experiment)]
    train_loader = build_train_loader(experiment, splits.train, learnt, pin)
    steps_per_epoch = count_steps(train_loader, settings.accumulate)
    initial = initial or build_initial_model(experiment, tasks)
    set_random_state(initial.rng_state)
    model = initial.model
    if start:
        warm_start(model, start)
    if settings.checkpoint_activations:
        recompute_blocks(model)
    precision.place(model)
    if settings.compile:
        model.compile()
    balancer = build_balancer(experiment, learnt).to(precision.device)
    average = make_average(model, settings)
    if world_size() > 1:
        join_norms(model)
        if settings.shard:
            check_shard(settings, balancer)
            shard(model)
            if average is not None:
                shard(average.module)
    optimizer = make_optimizer(experiment.optim, model.parameter_groups(), balancer)
    scaler = torch.amp.GradScaler(precision.device.type, enabled=settings.amp == "fp16")
    state = TrainState(model, average, optimizer, balancer, scaler)
    state.restore(folder)
    return Job(
        title=_title(experiment),
        folder=folder,
        config=experiment.to_yaml(),
        tasks=tasks,
        train_step=TrainStep(model, learnt, balancer, optimizer, precision, settings, scaler),
        state=state,
        schedule=Schedule(experiment.schedule, optimizer, settings.epochs, steps_per_epoch),
        train_loader=train_loader,
        val_loader=build_eval_loader(experiment, splits.val, tasks, pin),
        val_set=splits.val,
        input=experiment.input,
        predictor=lambda of: Predictor(of, tasks, experiment.input, device=precision),
        protocol=experiment.protocol,
        settings=settings,
        trackers=build_trackers(experiment),
    )


def _title(experiment: Experiment) -> str:
    names = "+".join(experiment.task_names())
    return f"{experiment.decoder.name} {names}"

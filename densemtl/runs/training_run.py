"""Build what a run trains: model, balancing method, optimizer, data and trackers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from densemtl.balancing.base import Balancer
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.sections import TrainConfig
from densemtl.distributed.collectives import get_world_size
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.engine.optimizer import LRSchedule, make_optimizer
from densemtl.engine.sharding import apply_fsdp, check_fsdp_compatible
from densemtl.engine.train_state import TrainState, make_ema
from densemtl.engine.train_step import TrainStep
from densemtl.engine.trainer import TrainingRun, count_steps_per_epoch
from densemtl.factory import (
    Splits,
    build_auxiliary_tasks,
    build_balancer,
    build_eval_loader,
    build_tasks,
    build_trackers,
    build_train_loader,
)
from densemtl.inference.predictor import Predictor
from densemtl.models.activation_checkpointing import enable_grad_checkpointing
from densemtl.runs.initial_model import InitialModel, build_initial_model
from densemtl.runs.warm_start import warm_start
from densemtl.runtime.execution import ExecutionConfig
from densemtl.runtime.rng_state import set_rng_state


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
    all_tasks = [*tasks, *build_auxiliary_tasks(experiment)]
    train_loader = build_train_loader(experiment, splits.train, all_tasks, pin)
    steps_per_epoch = count_steps_per_epoch(train_loader, settings.grad_accum_steps)
    initial = initial or build_initial_model(experiment, tasks)
    set_rng_state(initial.rng_state)
    model = initial.model
    if init_from:
        warm_start(model, init_from)
    _place_model(model, settings, execution)
    balancer = build_balancer(experiment, all_tasks).to(execution.device)
    ema = make_ema(model, settings)
    if get_world_size() > 1:
        _distribute_model(model, None if ema is None else ema.module, settings, balancer)
    optimizer = make_optimizer(experiment.optim, model.parameter_groups(), balancer)
    scaler = torch.amp.GradScaler(execution.device.type, enabled=settings.amp == "fp16")
    state = TrainState(model, ema, optimizer, balancer, scaler)
    state.restore(folder)
    return TrainingRun(
        title=_make_title(experiment),
        folder=folder,
        config_yaml=experiment.to_yaml(),
        tasks=tasks,
        train_step=TrainStep(model, all_tasks, balancer, optimizer, execution, settings, scaler),
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


def _place_model(model: nn.Module, config: TrainConfig, execution: ExecutionConfig) -> None:
    """Move a model to its device, and make it recompute activations or compile if asked to."""
    if config.grad_checkpointing:
        enable_grad_checkpointing(model)
    execution.to_device(model)
    if config.compile:
        model.compile()


def _distribute_model(
    model: nn.Module, averaged: nn.Module | None, config: TrainConfig, balancer: Balancer
) -> None:
    """Synchronize batch statistics over the ranks; shard the model and its average if asked to."""
    convert_sync_batchnorm(model)
    if config.fsdp:
        check_fsdp_compatible(config, balancer)
        apply_fsdp(model)
        if averaged is not None:
            apply_fsdp(averaged)


def _make_title(experiment: ExperimentConfig) -> str:
    names = "+".join(experiment.list_task_names())
    return f"{experiment.decoder.name} {names}"

"""Construction of a run: model, balancing method, optimizer, data loaders and trackers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balancer
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.config.experiment import ExperimentConfig
from densemtl.config.sections import TrainConfig
from densemtl.data.splits import Splits
from densemtl.distributed.collectives import get_world_size
from densemtl.distributed.sync_batch_norm import convert_sync_batchnorm
from densemtl.engine.adapter_ranks import list_shrinking, measure_importance
from densemtl.engine.async_updates import AsyncUpdates, check_async_updates
from densemtl.engine.checkpoint_writer import CheckpointWriter
from densemtl.engine.curriculum import Curriculum
from densemtl.engine.distillation import DISTILL, Distillation
from densemtl.engine.optimizer import RunSchedule, make_optimizer
from densemtl.engine.relationship import TaskRelationship
from densemtl.engine.run_components import (
    TrainingRun,
    count_initial_steps,
    count_steps_per_epoch,
)
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.sharding import apply_fsdp, check_fsdp_compatible
from densemtl.engine.train_state import TrainState, make_ema
from densemtl.engine.train_step import TrainStep
from densemtl.factory import (
    build_auxiliary_tasks,
    build_balancer,
    build_eval_loader,
    build_tasks,
    build_trackers,
    build_train_loader,
)
from densemtl.inference.predictor import Predictor
from densemtl.models.activation_checkpointing import enable_grad_checkpointing
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.feature_cache import cache_features
from densemtl.runs.initial_model import InitialModel, build_initial_model
from densemtl.runs.warm_start import warm_start
from densemtl.runtime.compilation import compile_model
from densemtl.runtime.execution import ExecutionConfig, tune_convolutions
from densemtl.runtime.rng_state import set_rng_state
from densemtl.tasks.base import Task


def build_training_run(
    experiment: ExperimentConfig,
    splits: Splits,
    folder: Path,
    execution: ExecutionConfig,
    init_from: Mapping[str, Path] | None = None,
    initial: InitialModel | None = None,
) -> TrainingRun:
    """Build the components of a run, and resume from the checkpoint in its folder if there is one.

    Args:
        experiment: the experiment to train.
        splits: its training and validation splits.
        folder: the run folder.
        execution: device, autocast type and memory layout.
        init_from: {task: single-task run} from which the networks of a decoder with one network per
            task start.
        initial: the initial model of the experiment if it is already built.

    Returns:
        A run for `densemtl.engine.trainer.train`.

    Raises:
        UserError: if components do not fit together, data is missing, or the checkpoint is corrupt.
    """
    config, pin_memory = experiment.train, execution.device.type == "cuda"
    tune_convolutions(execution.device, config)
    tasks = build_tasks(experiment)
    all_tasks = [*tasks, *build_auxiliary_tasks(experiment)]
    train_loader = build_train_loader(experiment, splits.train, all_tasks, pin_memory)
    steps_per_epoch = count_steps_per_epoch(train_loader, config.grad_accum_steps)
    initial = initial or build_initial_model(experiment, tasks)
    set_rng_state(initial.rng_state)
    if init_from:
        warm_start(initial.model, init_from)
    state = _build_state(experiment, initial, all_tasks, execution)
    if experiment.curriculum is not None:
        num_steps = count_initial_steps(config, steps_per_epoch)
        names = [task.name for task in all_tasks]
        state.curriculum = Curriculum(experiment.curriculum, initial.model, names, num_steps)
    state.restore(folder)
    run = TrainingRun(
        title=_make_title(experiment),
        folder=folder,
        config_yaml=experiment.to_yaml(),
        tasks=tasks,
        train_step=_build_train_step(state, all_tasks, execution, config),
        state=state,
        schedule=RunSchedule(experiment.schedule, state.optimizer, config, steps_per_epoch),
        train_loader=train_loader,
        val_loader=build_eval_loader(experiment, splits.val, tasks, pin_memory),
        val_dataset=splits.val,
        input_config=experiment.input,
        make_predict_fn=lambda model: (
            Predictor(model, tasks, experiment.input, device=execution).predict_sample
        ),
        protocol=experiment.protocol,
        train_config=config,
        trackers=build_trackers(experiment),
        checkpoint_writer=_make_checkpoint_writer(config, execution),
    )
    return cache_features(experiment, run) if experiment.loader.cache == "features" else run


def _build_state(
    experiment: ExperimentConfig,
    initial: InitialModel,
    tasks: Sequence[Task],
    execution: ExecutionConfig,
) -> TrainState:
    """Move the model to its device, and build everything else that training changes."""
    config, model, distillation = experiment.train, initial.model, initial.distillation
    balancer = build_balancer(experiment, tasks).to(execution.device)
    _place_model(model, config, execution, balancer)
    if distillation is not None:
        distillation.to_device(execution)
    check_sequential_heads(config, model, balancer)
    check_async_updates(config, balancer, tasks, list_weight_sections(experiment))
    ema = make_ema(model, config)
    if get_world_size() > 1:
        _distribute_model(model, None if ema is None else ema.module, experiment, balancer)
    groups = list_parameter_groups(model, distillation)
    optimizer = make_optimizer(experiment.optim, groups, balancer, model)
    measure_importance(model, optimizer)
    scaler = torch.amp.GradScaler(execution.device.type, enabled=config.amp == "fp16")
    relationship = build_relationship(experiment, model, tasks)
    async_updates = _build_async_updates(experiment, optimizer, tasks)
    return TrainState(
        *(model, ema, optimizer, balancer, scaler),
        relationship=relationship,
        async_updates=async_updates,
        distillation=distillation,
    )


def _make_checkpoint_writer(config: TrainConfig, execution: ExecutionConfig) -> CheckpointWriter:
    is_auto, on_gpu = config.async_checkpoints == "auto", execution.device.type == "cuda"
    return CheckpointWriter(on_gpu if is_auto else bool(config.async_checkpoints))


def list_parameter_groups(
    model: MultiTaskModel, distillation: Distillation | None
) -> dict[str, list[nn.Parameter]]:
    """Return the groups of all trained parameters except those of the balancing method.

    Args:
        model: the model.
        distillation: projections to the features of teachers.

    Returns:
        {group: parameters}; the projections are the group "distill".
    """
    groups = dict(model.parameter_groups())
    if distillation is not None:
        groups[DISTILL] = list(distillation.parameters())
    return groups


def _build_async_updates(
    experiment: ExperimentConfig, optimizer: Optimizer, tasks: Sequence[Task]
) -> AsyncUpdates | None:
    config = experiment.train.async_updates
    images_per_step = experiment.loader.batch_size * experiment.train.grad_accum_steps
    return None if config is None else AsyncUpdates(config, optimizer, tasks, images_per_step)


def _build_train_step(
    state: TrainState, tasks: Sequence[Task], execution: ExecutionConfig, config: TrainConfig
) -> TrainStep:
    return TrainStep(
        state.model,
        tasks,
        state.balancer,
        state.optimizer,
        execution,
        config,
        state.scaler,
        state.relationship,
        state.curriculum,
        state.async_updates,
        state.distillation,
    )


def list_weight_sections(experiment: ExperimentConfig) -> list[str]:
    """List the sections of an experiment that add losses or rules for parameters of all tasks.

    Args:
        experiment: the experiment.

    Returns:
        Names of the sections that are not null.
    """
    sections = {
        "relationship": experiment.relationship,
        "curriculum": experiment.curriculum,
        "distill": experiment.distill,
    }
    return [name for name, section in sections.items() if section is not None]


def build_relationship(
    experiment: ExperimentConfig, model: MultiTaskModel, tasks: Sequence[Task]
) -> TaskRelationship | None:
    """Build the prior on the task layers of a model, if the experiment has one.

    Args:
        experiment: the experiment.
        model: the model, on its device.
        tasks: all tasks that are trained.

    Returns:
        The prior; None if the section `relationship` is null.

    Raises:
        ConfigError: if the model has no layers that it could relate.
    """
    config = experiment.relationship
    return None if config is None else TaskRelationship(config, model, tasks)


def _place_model(
    model: nn.Module, config: TrainConfig, execution: ExecutionConfig, balancer: Balancer
) -> None:
    """Move a model to its device; enable activation checkpointing and compilation if configured."""
    if config.grad_checkpointing:
        enable_grad_checkpointing(model)
    execution.to_device(model)
    if config.compile:
        has_task_gradients = isinstance(balancer, GradientBalancer)
        compile_model(model, keeps_graph=has_task_gradients or config.grad_similarity_every > 0)


def _distribute_model(
    model: nn.Module, averaged: nn.Module | None, experiment: ExperimentConfig, balancer: Balancer
) -> None:
    """Synchronize batch statistics over ranks; shard the model and its average if configured."""
    convert_sync_batchnorm(model)
    if experiment.train.fsdp:
        sections = list_weight_sections(experiment)
        sections += ["adapters with shrink"] if list_shrinking(model) else []
        check_fsdp_compatible(experiment.train, balancer, sections)
        apply_fsdp(model)
        if averaged is not None:
            apply_fsdp(averaged)


def _make_title(experiment: ExperimentConfig) -> str:
    names = "+".join(experiment.list_task_names())
    return f"{experiment.decoder.name} {names}"

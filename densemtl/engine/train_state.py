"""State of training, saved in and restored from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balancer
from densemtl.config.renamed_keys import RENAMED_PROGRESS_FIELDS
from densemtl.config.sections import TrainConfig
from densemtl.config.translation import translate_fields
from densemtl.distributed.collectives import all_gather_object, get_rank, is_main_process
from densemtl.distributed.sharding import collect_on_main, shard_like, shard_optimizer_like
from densemtl.engine.async_updates import AsyncUpdates
from densemtl.engine.checkpoint import (
    LAST_DIR,
    STATE_NAME,
    load_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from densemtl.engine.curriculum import Curriculum
from densemtl.engine.distillation import Distillation
from densemtl.engine.early_stopping import Patience
from densemtl.engine.model_selection import SelectionScores
from densemtl.engine.relationship import TaskRelationship
from densemtl.engine.state_file import check_optimizer_state
from densemtl.engine.weight_average import WeightAverage
from densemtl.engine.weights_file import SavedWeights, format_recovery_hint
from densemtl.errors import CheckpointError, shorten_error
from densemtl.evaluation.scores import Scores
from densemtl.runtime.compilation import compile_model
from densemtl.runtime.rng_state import get_rng_state, set_rng_state


@dataclass
class TrainingProgress:
    """Progress of a run.

    Attributes:
        step: number of finished optimizer steps.
        seconds: duration of training and validation in seconds, summed over all interruptions.
        train_seconds: duration of training steps only, in seconds.
        images: number of training images processed, on all ranks.
        scores: {task: {metric: value}} of the latest validation.
        best_selection_scores: values of the selection metrics of the best validation; None before
            the first validation.
        best_step: number of finished optimizer steps at the best validation.
        best_scores: all metrics of the best validation, at the end also the final metrics.
        best_weights_hash: hash of the best weights.
        patience: what early stopping remembers.
        stop_reason: why the training ended before its last step; "" if it did not.
    """

    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    images: int = 0
    scores: Scores = field(default_factory=dict)
    best_selection_scores: SelectionScores | None = None
    best_step: int = 0
    best_scores: Scores = field(default_factory=dict)
    best_weights_hash: str = ""
    patience: Patience = field(default_factory=Patience)
    stop_reason: str = ""


MAX_COUNT = 2**53
"""Maximum number of steps or images in a saved state, up to which float64 is exact."""


def _to_progress(saved: dict[str, Any]) -> TrainingProgress:
    values = translate_fields(saved, RENAMED_PROGRESS_FIELDS)
    unknown = values.keys() - {entry.name for entry in fields(TrainingProgress)}
    if unknown:
        raise ValueError(f"unknown field {min(unknown)}")
    progress = TypeAdapter(TrainingProgress).validate_python(values)
    for name in ("step", "best_step", "images"):
        if not 0 <= getattr(progress, name) <= MAX_COUNT:
            raise ValueError(f"{name} is out of range")
    return progress


@contextmanager
def _report_wrong_state(file: Path) -> Iterator[None]:
    """Convert the errors that wrong fields, types or shapes in a saved state cause."""
    try:
        yield
    except (torch.OutOfMemoryError, CheckpointError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = shorten_error(error)
        raise CheckpointError(
            f"{file}: wrong fields or types ({reason}); {format_recovery_hint(file)}"
        ) from error


@dataclass
class TrainState:
    """State that training changes and checkpoints hold, in addition to random number generators.

    Attributes:
        model: the model.
        ema: moving average of its weights; None if the run has none.
        optimizer: the optimizer.
        balancer: the balancing method.
        scaler: the loss scaler of mixed precision.
        progress: steps, times and scores.
        relationship: the prior on task layers; None if the run has none.
        curriculum: the phases of the tasks; None if the run has none.
        async_updates: gradients that wait for their update; None without asynchronous updates.
        distillation: projections to the features of teachers; None if the run has none.
    """

    model: nn.Module
    ema: WeightAverage | None
    optimizer: Optimizer
    balancer: Balancer
    scaler: torch.amp.GradScaler
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    relationship: TaskRelationship | None = None
    curriculum: Curriculum | None = None
    async_updates: AsyncUpdates | None = None
    distillation: Distillation | None = None

    @property
    def eval_model(self) -> nn.Module:
        """Model that is validated and saved: the moving average if there is one."""
        return self.model if self.ema is None else self.ema.module

    def save(self, folder: Path, config_yaml: str) -> None:
        """Save the checkpoint `last/`; all ranks must call this method.

        Args:
            folder: the run folder.
            config_yaml: resolved configuration (YAML).
        """
        weights, state = self.collect(config_yaml)
        if is_main_process():
            write_checkpoint(folder, weights, state)

    def collect(
        self, config_yaml: str, *, snapshot: bool = False
    ) -> tuple[SavedWeights, dict[str, Any]]:
        """Collect what a checkpoint holds; all ranks must call this method.

        Args:
            config_yaml: resolved configuration (YAML).
            snapshot: whether to copy all tensors to the CPU, so that the training may continue
                before they are written. Copies from a GPU are asynchronous: they must not be read
                before the current stream has finished them.

        Returns:
            The arguments `weights` and `state` of `write_checkpoint`, complete on the main process.
        """
        state = {
            "record": asdict(self.progress),
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "relationship": (None if self.relationship is None else self.relationship.state_dict()),
            "curriculum": None if self.curriculum is None else self.curriculum.state_dict(),
            "async_updates": None
            if self.async_updates is None
            else self.async_updates.state_dict(),
            "distillation": None if self.distillation is None else self.distillation.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "rng": all_gather_object(get_rng_state()),
        }
        tensors = collect_on_main(dict(self.model.state_dict()), copy=True, pinned=snapshot)
        state = collect_on_main(state, copy=snapshot, pinned=snapshot)
        return SavedWeights(tensors, config_yaml), state

    def restore(self, folder: Path) -> None:
        """Resume from the checkpoint `last/` if there is one, including random number generators.

        Args:
            folder: the run folder.

        Raises:
            CheckpointError: if the checkpoint is corrupt, has wrong fields or types, is of another
                model, or is not visible to all ranks.
        """
        state = load_checkpoint(folder, self.model)
        file = folder / LAST_DIR / STATE_NAME
        with _report_wrong_state(file):
            progress = TrainingProgress() if state is None else _to_progress(state["record"])
        if len(set(all_gather_object(progress.step))) > 1:
            raise CheckpointError(
                f"{folder / LAST_DIR}: not visible to all processes: all machines of a job need "
                f"the same folder on a shared file system"
            )
        if state is None:
            self._restore_rng([])
            return
        self.progress = progress
        with _report_wrong_state(file):
            self._restore_parts(state)

    def _restore_parts(self, state: dict[str, Any]) -> None:
        check_optimizer_state(state["optimizer"], self.optimizer)
        parts = shard_optimizer_like(state["optimizer"], self.optimizer)
        self.optimizer.load_state_dict(parts)
        self.balancer.load_state_dict(state["balancer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.relationship is not None:
            self.relationship.load_state_dict(state["relationship"])
        if self.curriculum is not None:
            self.curriculum.load_state_dict(state["curriculum"])
        if self.async_updates is not None:
            self.async_updates.load_state_dict(state["async_updates"])
        if self.distillation is not None:
            self.distillation.load_state_dict(state["distillation"])
        if self.ema is not None:
            self.ema.module.load_state_dict(shard_like(state["ema"], self.ema.module))
        rng_states = state["rng"]
        self._restore_rng([rng_states] if isinstance(rng_states, dict) else rng_states)

    def _restore_rng(self, states: Sequence[dict[str, Any]]) -> None:
        """Restore the random state of this rank; without one, seed with (seed, rank, step)."""
        if get_rank() < len(states):
            set_rng_state(states[get_rank()])
        elif get_rank() > 0:
            seeds = np.random.SeedSequence((torch.initial_seed(), get_rank(), self.progress.step))
            torch.manual_seed(int(seeds.generate_state(1)[0]))


def read_progress(folder: Path) -> TrainingProgress | None:
    """Read the progress of a run without its model.

    Args:
        folder: the run folder.

    Returns:
        The progress in the checkpoint `last/`; None if there is no checkpoint.

    Raises:
        CheckpointError: if the checkpoint is corrupt, or has wrong fields or types.
    """
    checkpoint = read_checkpoint(folder)
    if checkpoint is None:
        return None
    with _report_wrong_state(folder / LAST_DIR / STATE_NAME):
        return _to_progress(checkpoint[1]["record"])


def make_ema(model: nn.Module, config: TrainConfig) -> WeightAverage | None:
    """Create the moving average of the weights of a model.

    Args:
        model: the model to average.
        config: the section `train` of the configuration.

    Returns:
        The moving average; None if `ema_decay` is not set.
    """
    if not config.ema_decay:
        return None
    average = WeightAverage(model, config.ema_decay)
    if config.compile:  # the copy of a compiled model is not compiled
        compile_model(average.module, keeps_graph=False)
    return average

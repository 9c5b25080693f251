"""Everything that training changes, saved and restored as one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from densemtl.distributed.collectives import gather, rank
from densemtl.engine.model_selection import Selection
from densemtl.engine.checkpoint import LAST, load_last, save_last
from densemtl.evaluation.evaluate import Scores
from densemtl.distributed.sharding import gather_full, shard_like, shard_optimizer_like
from densemtl.runtime.rng_state import random_state, set_random_state
from densemtl.errors import CheckpointError
from densemtl.config.renamed_keys import RENAMED_PROGRESS_FIELDS, translate_fields
from densemtl.config.sections import TrainSettings


@dataclass
class Record:
    """How far a run has come, in plain numbers.

    Attributes:
        step: optimiser steps done.
        seconds: of training and validation so far, over all its interruptions.
        train_seconds: those of training steps alone.
        images: seen in training.
        scores: of the latest validation.
        best: what the weights are chosen by, of the best validation; None before the first.
        best_step: when it was.
        best_scores: all of its metrics, and in the end the final ones.
        best_weights: hash of its weights.
    """

    step: int = 0
    seconds: float = 0.0
    train_seconds: float = 0.0
    images: int = 0
    scores: Scores = field(default_factory=dict)
    best: Selection | None = None
    best_step: int = 0
    best_scores: Scores = field(default_factory=dict)
    best_weights: str = ""


def _to_record(saved: dict[str, Any]) -> Record:
    return Record(**translate_fields(saved, RENAMED_PROGRESS_FIELDS))


@dataclass
class TrainState:
    """Model, averaged model, optimiser, balancer, loss scale, random numbers and the record."""

    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: Optimizer
    balancer: nn.Module
    scaler: torch.amp.GradScaler
    record: Record = field(default_factory=Record)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is validated and saved: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def save(self, folder: Path, config: str) -> None:
        """Replace `last/` in the run's folder."""
        state = {
            "record": asdict(self.record),
            "optimizer": gather_full(self.optimizer.state_dict()),
            "balancer": self.balancer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else gather_full(self.ema.module.state_dict()),
            "rng": gather(random_state()),
        }
        save_last(folder, self.model, state, config)

    def restore(self, folder: Path) -> None:
        """Go on from `last/`, if there is one; the random numbers too.

        Raises:
            CheckpointError: it is corrupt, of another model, or not there for all ranks.
        """
        state = load_last(folder, self.model)
        record = Record() if state is None else _to_record(state["record"])
        if len(set(gather(record.step))) > 1:
            raise CheckpointError(
                f"{folder / LAST}: some processes do not see it: all machines of a job need the "
                f"same folder, on a file system that they share"
            )
        if state is None:
            self._go_on_drawing([])
            return
        self.record = record
        parts = shard_optimizer_like(state["optimizer"], self.optimizer)
        self.optimizer.load_state_dict(parts)
        self.balancer.load_state_dict(state["balancer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(shard_like(state["ema"], self.ema.module))
        numbers = state["rng"]
        self._go_on_drawing([numbers] if isinstance(numbers, dict) else numbers)

    def _go_on_drawing(self, states: Sequence[dict[str, Any]]) -> None:
        """Each rank its own numbers; one that has none yet starts from (seed, rank, step)."""
        if rank() < len(states):
            set_random_state(states[rank()])
        elif rank() > 0:
            seeds = np.random.SeedSequence((torch.initial_seed(), rank(), self.record.step))
            torch.manual_seed(int(seeds.generate_state(1)[0]))


def make_average(model: nn.Module, settings: TrainSettings) -> ModelEmaV3 | None:
    """The moving average of a model's weights that the settings ask for, if they do."""
    if not settings.ema:
        return None
    # Shards lie beside whole buffers, and a joint operation takes one kind alone.
    return ModelEmaV3(model, settings.ema, use_warmup=True, foreach=not settings.shard)

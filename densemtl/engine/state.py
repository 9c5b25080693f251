"""Everything that training changes, saved and restored as one."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim import Optimizer

from densemtl.engine.best import Selection
from densemtl.engine.checkpoint import load_last, save_last
from densemtl.engine.evaluate import Scores
from densemtl.engine.randomness import random_state, set_random_state
from densemtl.settings import TrainSettings


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
            "optimizer": self.optimizer.state_dict(),
            "balancer": self.balancer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "rng": random_state(),
        }
        save_last(folder, self.model, state, config)

    def restore(self, folder: Path) -> None:
        """Go on from `last/`, if there is one; the random numbers too.

        Raises:
            CheckpointError: it is corrupt or of another model.
        """
        state = load_last(folder, self.model)
        if state is None:
            return
        self.record = Record(**state["record"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balancer.load_state_dict(state["balancer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(state["ema"])
        set_random_state(state["rng"])


def make_average(model: nn.Module, settings: TrainSettings) -> ModelEmaV3 | None:
    """The moving average of a model's weights that the settings ask for, if they do."""
    return ModelEmaV3(model, settings.ema, use_warmup=True) if settings.ema else None

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

from densemtl.config.renamed_keys import RENAMED_PROGRESS_FIELDS
from densemtl.config.sections import TrainConfig
from densemtl.config.translation import translate_fields
from densemtl.distributed.collectives import all_gather_object, get_rank
from densemtl.distributed.sharding import gather_full, shard_like, shard_optimizer_like
from densemtl.engine.checkpoint import LAST_DIR, load_checkpoint, save_checkpoint
from densemtl.engine.model_selection import SelectionScores
from densemtl.errors import CheckpointError
from densemtl.evaluation.evaluate import Scores
from densemtl.runtime.rng_state import get_rng_state, set_rng_state


@dataclass
class TrainingProgress:
    """How far a run has come, in plain numbers.

    Attributes:
        step: optimizer steps done.
        seconds: of training and validation so far, over all its interruptions.
        train_seconds: those of training steps alone.
        images: seen in training.
        scores: of the latest validation.
        best_selection_scores: what the weights are chosen by, of the best validation; None before
            the first.
        best_step: when it was.
        best_scores: all of its metrics, and in the end the final ones.
        best_weights_hash: hash of its weights.
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


def _to_progress(saved: dict[str, Any]) -> TrainingProgress:
    return TrainingProgress(**translate_fields(saved, RENAMED_PROGRESS_FIELDS))


@dataclass
class TrainState:
    """Model, averaged model, optimizer, balancer, loss scale, random numbers and the progress."""

    model: nn.Module
    ema: ModelEmaV3 | None
    optimizer: Optimizer
    balancer: nn.Module
    scaler: torch.amp.GradScaler
    progress: TrainingProgress = field(default_factory=TrainingProgress)

    @property
    def eval_model(self) -> nn.Module:
        """The model that is validated and saved: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    def save(self, folder: Path, config_yaml: str) -> None:
        """Replace `last/` in the run's folder."""
        state = {
            "record": asdict(self.progress),
            "optimizer": gather_full(self.optimizer.state_dict()),
            "balancer": self.balancer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": None if self.ema is None else gather_full(self.ema.module.state_dict()),
            "rng": all_gather_object(get_rng_state()),
        }
        save_checkpoint(folder, self.model, state, config_yaml)

    def restore(self, folder: Path) -> None:
        """Go on from `last/`, if there is one; the random numbers too.

        Raises:
            CheckpointError: it is corrupt, of another model, or not there for all ranks.
        """
        state = load_checkpoint(folder, self.model)
        progress = TrainingProgress() if state is None else _to_progress(state["record"])
        if len(set(all_gather_object(progress.step))) > 1:
            raise CheckpointError(
                f"{folder / LAST_DIR}: some processes do not see it: all machines of a job need "
                f"the same folder, on a file system that they share"
            )
        if state is None:
            self._restore_rng([])
            return
        self.progress = progress
        parts = shard_optimizer_like(state["optimizer"], self.optimizer)
        self.optimizer.load_state_dict(parts)
        self.balancer.load_state_dict(state["balancer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None:
            self.ema.module.load_state_dict(shard_like(state["ema"], self.ema.module))
        numbers = state["rng"]
        self._restore_rng([numbers] if isinstance(numbers, dict) else numbers)

    def _restore_rng(self, states: Sequence[dict[str, Any]]) -> None:
        """Each rank its own numbers; one that has none yet starts from (seed, rank, step)."""
        if get_rank() < len(states):
            set_rng_state(states[get_rank()])
        elif get_rank() > 0:
            seeds = np.random.SeedSequence((torch.initial_seed(), get_rank(), self.progress.step))
            torch.manual_seed(int(seeds.generate_state(1)[0]))


def make_ema(model: nn.Module, config: TrainConfig) -> ModelEmaV3 | None:
    """The moving average of a model's weights that the settings ask for, if they do."""
    if not config.ema_decay:
        return None
    # Shards lie beside whole buffers, and a joint operation takes one kind alone.
    return ModelEmaV3(model, config.ema_decay, use_warmup=True, foreach=not config.fsdp)

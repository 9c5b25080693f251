"""Small state of training for tests of checkpoints."""

from __future__ import annotations

import torch
from torch import nn

from densemtl.balancing.fixed import Fixed
from densemtl.engine.train_state import TrainingProgress, TrainState
from densemtl.tasks.depth import Depth


def make_train_state() -> TrainState:
    """Return the state after one step of AdamW on a linear layer."""
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.autograd.backward(model.weight.sum() + model.bias.sum())
    optimizer.step()
    progress = TrainingProgress(step=1, best_selection_scores={"depth": 1.0})
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return TrainState(model, None, optimizer, Fixed([Depth("depth")]), scaler, progress)

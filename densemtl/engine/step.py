"""One optimisation step: forward, losses, balanced backward, clip, update, second look if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balance, Balancer
from densemtl.distributed import average_gradients
from densemtl.engine.precision import Precision
from densemtl.engine.second_look import SecondLook
from densemtl.losses.objective import Losses, objective
from densemtl.settings import TrainSettings
from densemtl.tasks.base import Task
from densemtl.types import Batch

Report = dict[str, Tensor]
"""{name: detached scalar}: each task's loss, `weight/TASK`, the balancer's measures, `total`."""


@dataclass
class Stepper:
    """What a step needs, put together once."""

    model: nn.Module
    tasks: Sequence[Task]
    balancer: Balancer
    optimizer: Optimizer
    precision: Precision
    settings: TrainSettings
    scaler: torch.amp.GradScaler

    def step(self, batches: Sequence[Batch]) -> Report:
        """Add up the gradients of some batches and take one step along their mean."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        asked = self.balancer.looks_again
        look = SecondLook(self.model, self.tasks, self.precision) if asked else None
        told: list[Losses] = []
        passes = [partial(self._forward, batch, told) for batch in batches]
        balance = self.balancer.step(
            passes, self.model, lambda loss: self.scaler.scale(loss / len(batches))
        )
        report = _report(told, balance)
        if self.settings.non_finite == "stop" or bool(report["total"].isfinite()):
            self._update()
            if look is not None:
                self.balancer.look_again(report, look.losses(batches))
        return report

    def _forward(self, batch: Batch, told: list[Losses]) -> Losses:
        batch = batch.to(self.precision.device)
        predictions = self.precision.run(self.model, batch.image)
        losses = objective(self.tasks, predictions, batch.targets)
        told.append(_detached(losses))
        return losses

    def _update(self) -> None:
        if not self.settings.shard:  # whose gradients are averaged as they are made
            average_gradients(self.model)
        average_gradients(self.balancer)
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _detached(losses: Losses) -> Losses:
    parts = (losses.tasks, losses.terms)
    return Losses(*({name: loss.detach() for name, loss in part.items()} for part in parts))


def _report(told: Sequence[Losses], balance: Balance) -> Report:
    """Means over the batches of a step."""
    each = [{**losses.tasks, **losses.terms} for losses in told]
    report = {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}
    report |= {f"weight/{task}": weight for task, weight in balance.weights.items()}
    return {**report, **balance.measures, "total": balance.total}

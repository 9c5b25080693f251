"""One optimisation step: forward, losses, balanced backward, clip, update, second look if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balance, Balancer
from densemtl.engine.precision import Precision
from densemtl.engine.second_look import SecondLook
from densemtl.losses.objective import Losses, objective
from densemtl.settings import TrainSettings
from densemtl.tasks.base import Task
from densemtl.types import Batch

Report = dict[str, Tensor]
"""{name: detached scalar}: each task's loss, each `weight/TASK`, and `total`."""


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
        reports = [self._backward(batch, len(batches)) for batch in batches]
        report = {name: torch.stack([each[name] for each in reports]).mean() for name in reports[0]}
        if self.settings.non_finite == "stop" or bool(report["total"].isfinite()):
            self._update()
            if look is not None:
                self.balancer.look_again(report, look.losses(batches))
        return report

    def _backward(self, batch: Batch, parts: int) -> Report:
        batch = batch.to(self.precision.device)
        predictions = self.precision.run(self.model, batch.image)
        losses = objective(self.tasks, predictions, batch.targets)
        balance = self.balancer.backward(
            losses, self.model, lambda loss: self.scaler.scale(loss / parts)
        )
        return _report(losses, balance)

    def _update(self) -> None:
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _report(losses: Losses, balance: Balance) -> Report:
    report = {name: loss.detach() for name, loss in {**losses.tasks, **losses.terms}.items()}
    report |= {f"weight/{task}": weight for task, weight in balance.weights.items()}
    return {**report, "total": balance.total}

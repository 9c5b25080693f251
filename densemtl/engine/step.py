"""One optimisation step: forward, losses, balanced backward, clip, update, looks if asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balance, Balancer
from densemtl.distributed import average_gradients
from densemtl.engine.fsdp import whole
from densemtl.engine.look import Look, Model
from densemtl.engine.monitor import GRADIENT
from densemtl.engine.parts import Part, parts_of
from densemtl.engine.precision import Precision
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
        """Add up the gradients of some batches and take one step along that of the joined one."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = parts_of(batches, self.tasks, self.precision.device)
        looks = self.balancer.looks_again or len(parts) > 1
        look = Look(self.model, self._losses) if looks else None
        told: list[Losses] = []
        balance = self.balancer.step(
            [partial(self._pass, part, told) for part in parts],
            look.losses(parts) if look else (),
            self.model,
            lambda loss: self.scaler.scale(loss / len(parts)),
        )
        report = _report(told, balance)
        if self.settings.non_finite == "skip" and not bool(report["total"].isfinite()):
            return report
        self._average()
        if self.settings.non_finite == "skip" and not bool((norm := self._norm()).isfinite()):
            return {**report, GRADIENT: norm}
        self._update()
        if look is not None and self.balancer.looks_again:
            self.balancer.look_again(report, look.joined(parts))
        return report

    def _pass(self, part: Part, told: list[Losses]) -> Losses:
        losses = self._losses(self.model, part)
        told.append(losses.detached())
        return losses

    def _losses(self, model: Model, part: Part) -> Losses:
        predictions = self.precision.run(model, part.batch.image, full_size=False)
        return part.weighted(objective(self.tasks, predictions, part.batch.targets))

    def _average(self) -> None:
        if not self.settings.shard:  # whose gradients are averaged as they are made
            average_gradients(self.model)
        average_gradients(self.balancer)

    def _norm(self) -> Tensor:
        """Of the gradient; 0 where losses are scaled, which brings such a check of its own."""
        groups = [] if self.scaler.is_enabled() else self.optimizer.param_groups
        gradients = [each.grad for group in groups for each in group["params"]]
        found = [gradient for gradient in gradients if gradient is not None]
        norm: Tensor = whole(nn.utils.get_total_norm(found))
        return norm

    def _update(self) -> None:
        if self.settings.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def _report(told: Sequence[Losses], balance: Balance) -> Report:
    """Losses of the joined batch, the means over its parts."""
    each = [{**losses.tasks, **losses.terms} for losses in told]
    report = {name: torch.stack([losses[name] for losses in each]).mean() for name in each[0]}
    report |= {f"weight/{task}": weight for task, weight in balance.weights.items()}
    return {**report, **balance.measures, "total": balance.total}

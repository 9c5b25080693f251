"""Optimizer step: forward and backward passes of all micro-batches, balancing and update."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densemtl.balancing.backward_passes import BalancingOutput, LossScaler, TaskBackward
from densemtl.balancing.base import Balancer, WeightedLossBackward
from densemtl.config.sections import TrainConfig
from densemtl.distributed.collectives import average_gradients
from densemtl.distributed.sharding import gather_full
from densemtl.engine.async_updates import AsyncUpdates
from densemtl.engine.curriculum import Curriculum
from densemtl.engine.distillation import Distillation, RecordedMaps
from densemtl.engine.loss_monitor import GRADIENT_KEY
from densemtl.engine.micro_batches import MicroBatch, make_micro_batches
from densemtl.engine.relationship import TaskRelationship
from densemtl.engine.replayed_forward import ModelFn, ReplayForward
from densemtl.layers.gradient_cut import DetachedFeatures
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.tasks.multi_task_loss import compute_task_losses
from densemtl.types import Batch, Losses, join_losses

RELATIONSHIP_KEY, ANCHOR_KEY = "relationship", "anchor"
"""Names of the penalties of the prior on task layers and of the curriculum, which are auxiliary
losses."""

StepLog = dict[str, Tensor]
"""{name: detached scalar} with each loss, the loss weights `weight/TASK`, the log values of the
balancing method and `total`."""


@dataclass
class TrainStep:
    """Optimizer step of a model with all components that it needs.

    Attributes:
        model: the model.
        tasks: all tasks that are trained, including auxiliary tasks.
        balancer: the balancing method.
        optimizer: optimizer of the parameters of the model and the balancing method.
        precision: device, autocast type and memory layout.
        settings: the section `train` of the configuration.
        scaler: loss scaler of mixed precision; disabled without fp16.
        relationship: prior whose penalty is added to the auxiliary losses; None for none.
        curriculum: selects the tasks that are trained; None for all.
        async_updates: gradients that wait for their own update; None updates all in each step.
        distillation: loss term of features of frozen teachers; None for none.
    """

    model: nn.Module
    tasks: Sequence[Task]
    balancer: Balancer
    optimizer: Optimizer
    precision: ExecutionConfig
    settings: TrainConfig
    scaler: torch.amp.GradScaler
    relationship: TaskRelationship | None = None
    curriculum: Curriculum | None = None
    async_updates: AsyncUpdates | None = None
    distillation: Distillation | None = None

    def run(self, batches: Sequence[Batch]) -> StepLog:
        """Run one optimizer step on the joint batch of all micro-batches and ranks.

        Args:
            batches: the micro-batches of this rank, whose gradients are accumulated.

        Returns:
            The losses and loss weights of the joint batch.
        """
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        images = None if self.async_updates is None else self.async_updates.count_images(batches)
        if self.curriculum is not None:
            moved = [batch.to(self.precision.device) for batch in batches]
            batches = [self.curriculum.select_labels(batch) for batch in moved]
        micro_batches = make_micro_batches(batches, self.tasks, self.precision.device)
        scale = LossScaler(self.scaler, len(micro_batches))
        backward = self.balancer.start_step(self.model, scale)
        replay = ReplayForward(self.model) if self.balancer.needs_post_step_losses else None

        # Weights depend on all micro-batches, but only the graph of one is kept at a time.
        weights = None
        if self.settings.sequential_heads or (len(micro_batches) > 1 and backward.needs_replay):
            weights = self._compute_weights(micro_batches, backward)

        all_losses: list[Losses] = []
        for micro_batch in micro_batches:
            if self.settings.sequential_heads:
                assert weights is not None
                scaled = self._scale_weights(weights)
                all_losses.append(self._run_sequential_heads(micro_batch, backward, scaled))
                continue
            with backward.recording():
                losses = self._compute_losses(self.model, micro_batch)
            all_losses.append(losses.detach())
            backward.add(losses)
            if backward.keeps_graph or micro_batch is micro_batches[-1]:
                weights = backward.compute_weights() if weights is None else weights
                backward.backward(self._scale_weights(weights))
        assert weights is not None
        log = _make_log(all_losses, backward.finish(weights, all_losses))

        if self.curriculum is not None:
            self.curriculum.drop_gradients()

        self._all_reduce_gradients()
        if self.settings.on_non_finite == "skip":
            total, norm = log["total"].isfinite(), self._gradient_norm()
            if not bool(total & norm.isfinite()):  # waits for the device
                return {**log, GRADIENT_KEY: norm} if bool(total) else log
        self._update_parameters(images)

        if replay is not None:
            self._report_step_effect(log, replay, micro_batches)
        return log

    def _compute_losses(self, model: ModelFn, micro_batch: MicroBatch) -> Losses:
        """Run the model forward and compute the losses of the tasks."""
        batch = micro_batch.batch
        with self._record_maps() as maps:
            predictions = self.precision.forward(model, batch.model_input, full_size=False)
        losses = compute_task_losses(self.tasks, predictions, batch.targets, batch.image)
        losses.aux_losses.update(self._compute_penalties())
        losses.aux_losses.update(self._compute_distillation(maps, batch))
        return micro_batch.scale(losses)

    def _record_maps(self) -> AbstractContextManager[RecordedMaps]:
        """Create the context of a forward pass whose maps are compared with those of teachers."""
        # Without gradients, only the losses of the tasks are needed.
        if self.distillation is None or not torch.is_grad_enabled():
            return nullcontext({})
        return self.distillation.recording()

    def _compute_distillation(self, maps: RecordedMaps, batch: Batch) -> dict[str, Tensor]:
        """Compute the losses of the teachers, unless only the losses of the tasks are needed."""
        if self.distillation is None or not torch.is_grad_enabled():
            return {}
        return self.distillation.compute_losses(maps, batch.image, self.precision)

    def _compute_penalties(self) -> dict[str, Tensor]:
        """Compute the auxiliary losses that depend only on parameters."""
        penalties = {}
        if self.relationship is not None:
            penalties[RELATIONSHIP_KEY] = self.relationship.compute_penalty()
        if (
            self.curriculum is not None
            and (anchor := self.curriculum.compute_penalty()) is not None
        ):
            penalties[ANCHOR_KEY] = anchor
        return penalties

    def _scale_weights(self, weights: Tensor) -> Tensor:
        """Reduce the weights of tasks that the curriculum added a short time ago."""
        return weights if self.curriculum is None else self.curriculum.scale_weights(weights)

    def _run_sequential_heads(
        self, micro_batch: MicroBatch, backward: TaskBackward, weights: Tensor
    ) -> Losses:
        """Run each head forward and backward, then the shared part backward; return the losses.

        Only the graphs of the shared part and of one head exist at a time.
        """
        assert isinstance(self.model, MultiTaskModel)
        assert isinstance(backward, WeightedLossBackward)
        batch, detached = micro_batch.batch, DetachedFeatures()
        with self._record_maps() as maps:
            features, size = self.precision.forward(
                self.model.compute_shared_features, batch.model_input
            )
        leaves = [detached.detach(feature) for feature in features]
        parts: list[Losses] = []
        for task in self.tasks:
            with self.precision.autocast():
                predictions = self.model.decode_task(task.name, leaves, size)
            losses = compute_task_losses([task], predictions, batch.targets, batch.image)
            parts.append(backward.backward_part(micro_batch.scale(losses), weights))
        cut = {key: [detached.detach(each) for each in group] for key, group in maps.items()}
        terms = {**self._compute_penalties(), **self._compute_distillation(cut, batch)}
        if terms:
            parts.append(backward.backward_part(Losses({}, terms), weights))
        detached.backward()
        return join_losses(parts)

    def _compute_weights(
        self, micro_batches: Sequence[MicroBatch], backward: TaskBackward
    ) -> Tensor:
        """Return the weights of the joint batch before its first backward pass.

        All micro-batches are replayed if the weights depend on their losses.
        """
        if not backward.needs_replay:
            one = torch.ones((), device=self.precision.device)
            backward.observe(Losses({task.name: one for task in self.tasks}))
            return backward.compute_weights()
        with ReplayForward(self.model).session() as model:
            for micro_batch in micro_batches:
                with backward.replaying():
                    losses = self._compute_losses(model, micro_batch)
                backward.observe(losses)
        return backward.compute_weights()

    def _report_step_effect(
        self, before: StepLog, replay: ReplayForward, micro_batches: Sequence[MicroBatch]
    ) -> None:
        """Pass the losses before and after the update to the balancing method."""
        with torch.no_grad(), replay.session() as model:
            after = _mean([self._compute_losses(model, batch).tasks for batch in micro_batches])
        stack = self.balancer.stack_losses
        self.balancer.after_step(stack(before), stack(after))

    def _all_reduce_gradients(self) -> None:
        """Average the gradients over all ranks."""
        if not self.settings.fsdp:  # FSDP reduces gradients in the backward pass
            average_gradients(self.model)
        average_gradients(self.balancer)
        if self.distillation is not None:
            average_gradients(self.distillation)

    def _gradient_norm(self) -> Tensor:
        """Return the norm of all gradients; 0 with a loss scaler, which checks gradients itself."""
        return _compute_norm([] if self.scaler.is_enabled() else self.optimizer.param_groups)

    def _update_parameters(self, images: Mapping[str, int] | None) -> None:
        """Clip the gradients and update the selected parameters."""
        if self.settings.max_grad_norm is not None or self.async_updates is not None:
            self.scaler.unscale_(self.optimizer)
        with self._select_parameters(images) as has_update:
            if has_update:
                self._clip_gradients()
                self.scaler.step(self.optimizer)
        self.scaler.update()

    @contextmanager
    def _select_parameters(self, images: Mapping[str, int] | None) -> Iterator[bool]:
        """Select the parameters to update: all, or with asynchronous updates those that are due.

        Yields whether there are any. A step whose gradients overflow in fp16 is left out of
        asynchronous updates; `GradScaler` then skips other updates by itself.
        """
        if self.async_updates is None or images is None:
            yield True
        elif self.scaler.is_enabled() and not bool(
            _compute_norm(self.optimizer.param_groups).isfinite()
        ):
            yield False
        else:
            with self.async_updates.select_complete(images) as has_update:
                yield has_update

    def _clip_gradients(self) -> None:
        if self.settings.max_grad_norm is not None:
            parameters = list(self.model.parameters())
            if self.distillation is not None:
                parameters += self.distillation.parameters()
            nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm)


def _compute_norm(groups: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return the norm of the gradients of parameter groups."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = gather_full(nn.utils.get_total_norm(grads))
    return norm


def _make_log(losses: Sequence[Losses], output: BalancingOutput) -> StepLog:
    log = _mean([{**loss.tasks, **loss.aux_losses} for loss in losses])
    log |= {f"weight/{task}": weight for task, weight in output.weights.items()}
    return {**log, **output.log_values, "total": output.total}


def _mean(losses: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Return the losses of the joint batch, which are the means over the micro-batches."""
    return {name: torch.stack([values[name] for values in losses]).mean() for name in losses[0]}

"""Asynchronous updates: the parameters of each task are updated with their own effective batch.

Kokkinos, "UberNet: Training a Universal Convolutional Neural Network for Low-, Mid-, and High-Level
Vision Using Diverse Datasets and Limited Memory", CVPR 2017, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.config.sections import AsyncUpdatesConfig, TrainConfig
from densemtl.distributed.collectives import all_reduce_counts
from densemtl.errors import ConfigError, suggest
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Batch


class AsyncUpdates:
    """Gradients that wait until their parameters have seen enough labeled images.

    The parameters of a task wait for images with labels of this task. All parameters that belong to
    no single task wait together, for images with any label. The gradient of an update is the mean
    over the steps since the last one, weighted by their numbers of these images.

    Args:
        config: the section `train.async_updates` of the configuration.
        optimizer: optimizer with the groups of `make_parameter_groups`.
        tasks: all tasks that are trained.
        images_per_step: number of images per optimizer step on all ranks, the default of the
            effective batches.

    Attributes:
        counts: {task or "shared": number of images since its last update}.
    """

    def __init__(
        self,
        config: AsyncUpdatesConfig,
        optimizer: Optimizer,
        tasks: Sequence[Task],
        images_per_step: int,
    ) -> None:
        self._optimizer, self._tasks = optimizer, tuple(tasks)
        owners = (SHARED, *(task.name for task in tasks))
        self._batch_sizes = {
            owner: config.batch_sizes.get(owner, images_per_step) for owner in owners
        }
        self._parameters: dict[str, list[nn.Parameter]] = {owner: [] for owner in owners}
        for group in optimizer.param_groups:
            self._parameters[self._find_owner(group)] += group["params"]
        self.counts = dict.fromkeys(owners, 0)
        self._sums: dict[str, list[Tensor | None]] = {}
        for owner in owners:
            self._clear(owner)

    def _find_owner(self, group: Mapping[str, Any]) -> str:
        name = str(group["name"]).partition("/")[0]
        return name if name in self._batch_sizes else SHARED

    def _clear(self, owner: str) -> None:
        self.counts[owner] = 0
        self._sums[owner] = [None] * len(self._parameters[owner])

    def count_images(self, batches: Sequence[Batch]) -> dict[str, int]:
        """Count the labeled images of a step, on all ranks.

        Args:
            batches: the micro-batches of this rank as the loader returns them, so that counting
                does not wait for the device.

        Returns:
            {task: number of images with a label of this task, "shared": with a label of any task}.
        """
        masks = torch.cat([self._find_labels(batch) for batch in batches], dim=1)
        rows = torch.cat([masks.any(dim=0, keepdim=True), masks])
        return dict(zip(self.counts, all_reduce_counts(rows.sum(dim=1).tolist()), strict=True))

    def _find_labels(self, batch: Batch) -> Tensor:
        """Return which images have a label of which task, shape (tasks, images)."""
        masks = [task.compute_label_mask(batch.targets[task.name]) for task in self._tasks]
        return torch.stack([mask.flatten(1).any(dim=1) for mask in masks])

    @contextmanager
    def select_complete(self, images: Mapping[str, int]) -> Iterator[bool]:
        """Add the gradients of a step, and select the parameters whose effective batch is complete.

        Inside the context, the optimizer has only the groups of these parameters, whose `.grad` is
        the mean over the effective batch. The `.grad` of all others is None.

        Args:
            images: the result of `count_images`.

        Yields:
            Whether any effective batch is complete.
        """
        groups = list(self._optimizer.param_groups)
        complete = [owner for owner in self.counts if self._add(owner, images[owner])]
        self._optimizer.param_groups[:] = [
            group for group in groups if self._find_owner(group) in complete
        ]
        try:
            yield bool(complete)
        finally:
            self._optimizer.param_groups[:] = groups

    def _add(self, owner: str, count: int) -> bool:
        """Add the gradients of an owner; return whether its effective batch is complete."""
        total = self.counts[owner] + count
        is_complete = total >= self._batch_sizes[owner]
        if is_complete and not self.counts[owner]:
            return True  # a single step, whose gradient is used as it is
        sums = self._sums[owner]
        for index, parameter in enumerate(self._parameters[owner]):
            if count and parameter.grad is not None:
                weighted, waiting = parameter.grad.mul_(count), sums[index]
                sums[index] = weighted if waiting is None else waiting.add_(weighted)
            waiting = sums[index] if is_complete else None
            parameter.grad = None if waiting is None else waiting.div_(total)
        self.counts[owner] = total
        if is_complete:
            self._clear(owner)
        return is_complete

    def state_dict(self) -> dict[str, Any]:
        """Return the gradients that wait, and their numbers of images.

        Returns:
            {"counts": {owner: number}, "sums": {owner: one tensor or None per parameter}}.
        """
        return {"counts": dict(self.counts), "sums": dict(self._sums)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the gradients that wait.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: if the state does not fit the parameters.
        """
        for owner, parameters in self._parameters.items():
            count, sums = state["counts"][owner], state["sums"][owner]
            if not isinstance(count, int) or count < 0 or len(sums) != len(parameters):
                raise ValueError(f"waiting gradients of {owner} do not fit")
            pairs = list(zip(parameters, sums, strict=True))
            if any(each is not None and each.shape != p.shape for p, each in pairs):
                raise ValueError(f"a waiting gradient of {owner} does not fit its parameter")
            self.counts[owner] = count
            self._sums[owner] = [None if each is None else each.to(p) for p, each in pairs]


def check_async_updates(
    config: TrainConfig, balancer: Balancer, tasks: Sequence[Task], sections: Sequence[str]
) -> None:
    """Check that the parameters of tasks can be updated separately, if the run asks for it.

    Args:
        config: the section `train` of the configuration.
        balancer: the balancing method.
        tasks: all tasks that are trained.
        sections: sections of the configuration that concern parameters of all tasks.

    Raises:
        ConfigError: if they cannot; names the option to change.
    """
    if config.async_updates is None:
        return
    prefix = "train.async_updates"
    owners = [SHARED, *(task.name for task in tasks)]
    for name in config.async_updates.batch_sizes:
        if name not in owners:
            hint = suggest(name, owners)
            raise ConfigError(f"{prefix}.batch_sizes.{name}: no task {name!r}, {hint}")
    needs_all = (
        not isinstance(balancer, LossWeighting)
        or balancer.needs_joint_losses
        or balancer.needs_post_step_losses
    )
    conflicts = {
        "this balancing method needs all tasks in every update; choose one whose weights do not"
        " depend on the losses of the step, such as fixed or uncertainty": needs_all,
        f"not supported with {' and '.join(sections)}; set one of them to null": bool(sections),
        "not supported with train.fsdp; set one of them to false or null": config.fsdp,
    }
    for message, conflicting in conflicts.items():
        if conflicting:
            raise ConfigError(f"{prefix}: {message}")

"""Gates of tasks that exist only in a part of the image (`entire_space`).

The idea is that of ESMM (Ma et al., "Entire Space Multi-Task Model", SIGIR 2018): a task that is
labeled only where another event occurs is trained on all pixels, through the product of both
probabilities.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from densemtl.config.entire_space import EntireSpaceConfig, ValidRegionConfig
from densemtl.losses.partial_labels import PARTIAL_ID
from densemtl.ops.gated_classes import (
    find_classes,
    gate_by_classes,
    gate_by_logit,
    match_host_logits,
)
from densemtl.tasks.base import Task
from densemtl.tasks.classification import Classification
from densemtl.tasks.host_classes import find_class_ids, find_host
from densemtl.tasks.region_gates import RegionGate
from densemtl.tasks.valid_region import ValidRegionTask
from densemtl.types import IGNORE_INDEX, Predictions


@dataclass(frozen=True)
class ClassGate:
    """Gate of the classes of a task, except the first one.

    Attributes:
        task: name of the task.
        host: name of the task that has the classes for which the gate is open.
        classes: ids of these classes.
        options: the option `entire_space` of the task.
    """

    task: str
    host: str
    classes: frozenset[int]
    options: EntireSpaceConfig

    def apply(self, logits: Tensor, host_logits: Tensor | None) -> Tensor:
        """Compute the log-probabilities of the classes of the task over the entire space.

        Args:
            logits: outputs of the head of the task, shape (B, C, H, W).
            host_logits: logits of the other task, shape (B, K, h, w); a gate with a logit of its
                own does not need them.

        Returns:
            Log-probabilities, which are valid logits, shape (B, C, H, W).
        """
        if self.options.gate == "separate":
            return gate_by_logit(logits)
        assert host_logits is not None
        host = match_host_logits(host_logits, logits, detach=self.options.detach)
        return gate_by_classes(logits, host, self.classes)

    def complete_target(self, target: Tensor, host_target: Tensor) -> Tensor:
        """Derive labels of ignored pixels from those of the other task.

        Args:
            target: class ids of the task, shape (B, H, W); 255 marks ignored pixels.
            host_target: class ids of the other task, shape (B, H, W).

        Returns:
            Class ids, where ignored pixels have the first class if the gate is closed, and
            `PARTIAL_ID` if it is open. Pixels that both tasks ignore stay ignored.
        """
        unknown = (target == IGNORE_INDEX) & (host_target != IGNORE_INDEX)
        is_open = find_classes(host_target, self.classes)
        completed = torch.where(unknown & ~is_open, torch.zeros_like(target), target)
        return torch.where(unknown & is_open, PARTIAL_ID, completed).to(target.dtype)


Gate = ClassGate | RegionGate
"""Gate of classes or of values."""


def find_gates(tasks: Sequence[Task]) -> list[Gate]:
    """Find the gates of all tasks with the option `entire_space`.

    Args:
        tasks: all tasks that are learned.

    Returns:
        One gate per such task.

    Raises:
        ConfigError: if the other task or one of its classes does not exist, or does not fit.
    """
    return [
        _make_gate(task, task.entire_space, tasks)
        for task in tasks
        if isinstance(task, Classification | ValidRegionTask) and task.entire_space is not None
    ]


def _make_gate(
    task: Task, options: EntireSpaceConfig | ValidRegionConfig, tasks: Sequence[Task]
) -> Gate:
    if options.of is None:
        assert isinstance(options, ValidRegionConfig)
        return RegionGate(task.name, None, frozenset(), options)
    path = f"tasks.{task.name}.entire_space"
    host = find_host(options.of, task, tasks, path)
    ids = find_class_ids(options.classes, host, path)
    if isinstance(options, ValidRegionConfig):
        return RegionGate(task.name, host.name, ids, options)
    return ClassGate(task.name, host.name, ids, options)


def apply_gates(gates: Sequence[Gate], predictions: Predictions) -> Predictions:
    """Replace the outputs of the heads of gated tasks.

    Those of tasks with classes become log-probabilities, and those of values the values and the
    logit of their validity.

    Args:
        gates: the gates of the tasks.
        predictions: predictions of a decoder. Auxiliary predictions that lack the other task use
            its final prediction.

    Returns:
        Predictions whose logits of all tasks are valid over the entire space.
    """
    if not gates:
        return predictions
    final = predictions.logits
    return replace(
        predictions,
        logits=_apply(gates, final, final),
        aux_logits=[_apply(gates, logits, final) for logits in predictions.aux_logits],
    )


def _apply(
    gates: Sequence[Gate], logits: Mapping[str, Tensor], final: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    gated = {
        gate.task: gate.apply(logits[gate.task], {**final, **logits}.get(gate.host or ""))
        for gate in gates
        if gate.task in logits
    }
    return {**logits, **gated}


def complete_targets(gates: Sequence[Gate], targets: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Derive training labels of gated tasks from those of the tasks that have their gates.

    Args:
        gates: the gates of the tasks.
        targets: {task: targets} as in `Batch.targets`.

    Returns:
        {task: targets}.
    """
    return {**targets, **{gate.task: _complete(gate, targets) for gate in gates}}


def _complete(gate: Gate, targets: Mapping[str, Tensor]) -> Tensor:
    if isinstance(gate, ClassGate):
        return gate.complete_target(targets[gate.task], targets[gate.host])
    host_target = None if gate.host is None else targets[gate.host]
    return gate.complete_target(targets[gate.task], host_target)

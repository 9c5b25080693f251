"""How the tasks of a trained network get on with each other, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densemtl.engine.loading import TrainedModel
from densemtl.engine.task_affinity import TaskAffinity
from densemtl.errors import ConfigError
from densemtl.factory import build_auxiliary_tasks, build_dataset, build_train_loader
from densemtl.io.atomic import atomic_write, write_json

AFFINITY = "affinity"

CELL_INCHES = 0.75
"""Inches of a matrix's entry."""


@dataclass(frozen=True)
class AffinityReport:
    """Means over batches.

    Attributes:
        tasks: names of rows and columns.
        gradient_cosines: {place: tasks x tasks cosines of gradients}.
        lookahead: share of the column's loss that a step for the row's task takes away.
        lr: learning rate of that step.
        batches: how many were looked at.
    """

    tasks: tuple[str, ...]
    gradient_cosines: dict[str, Tensor]
    lookahead: Tensor
    lr: float
    batches: int

    def get_matrices(self) -> dict[str, Tensor]:
        """All by name."""
        return {**self.gradient_cosines, "look-ahead": self.lookahead}

    def save(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        values = {name: matrix.tolist() for name, matrix in self.get_matrices().items()}
        content = {"tasks": list(self.tasks), "rate": self.lr, "batches": self.batches, **values}
        write_json(file, content)


def measure_affinity(
    trained: TrainedModel, num_batches: int, lr: float | None = None
) -> AffinityReport:
    """Look at the first batches of the training set, as a run sees them.

    Args:
        trained: a trained network.
        num_batches: how many.
        lr: of the look-ahead step; None for the run's own learning rate.

    Raises:
        ConfigError: no batch at all, or a rate that is not positive.
        ModelError: tasks share no parameters.
        DataError: the data is not there, or not as expected.
    """
    experiment = trained.experiment
    step = experiment.optim.lr if lr is None else lr
    if num_batches < 1 or step <= 0:
        raise ConfigError(f"--batches {num_batches}, --rate {step:g}: both must be more than 0")
    tasks = [*trained.tasks, *build_auxiliary_tasks(experiment)]
    relations = TaskAffinity(trained.model, tasks, trained.execution)
    loader = build_train_loader(experiment, build_dataset(experiment, "train"), tasks, False)
    cosines: list[dict[str, Tensor]] = []
    lookaheads: list[Tensor] = []
    for batch in islice(loader, num_batches):
        cosines.append(relations.compute_gradient_cosines(batch))
        lookaheads.append(relations.compute_affinity(batch, step))
    means = {
        stage: _average([by_stage[stage] for by_stage in cosines]) for stage in relations.stages
    }
    names = tuple(task.name for task in tasks)
    return AffinityReport(names, means, _average(lookaheads), step, len(lookaheads))


def _average(matrices: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(matrices)).mean(dim=0).cpu()


def plot_affinity(affinity: AffinityReport, file: Path) -> None:
    """Write a picture, each matrix with its numbers."""
    from matplotlib.figure import Figure

    matrices = affinity.get_matrices()
    side = 1.6 + CELL_INCHES * len(affinity.tasks)
    figure = Figure(figsize=(side * len(matrices), side), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        _plot_matrix(axis, name, matrix, affinity.tasks)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110)


def _plot_matrix(axis: Any, name: str, matrix: Tensor, tasks: Sequence[str]) -> None:
    furthest = max(float(matrix.abs().max()), 1e-12)
    axis.imshow(matrix, cmap="RdBu", vmin=-furthest, vmax=furthest)
    axis.set_title(name, fontsize=10)
    axis.set_xticks(range(len(tasks)), tasks, fontsize=8, rotation=30)
    axis.set_yticks(range(len(tasks)), tasks, fontsize=8)
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            dark = abs(value) > 0.6 * furthest
            colour = "white" if dark else "black"
            axis.text(column, row, f"{value:.2g}", ha="center", va="center", color=colour)

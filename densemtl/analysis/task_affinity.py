"""Affinity of the tasks of a trained model: measurement, JSON file and figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""Side of a matrix entry in the figure, in inches."""


@dataclass(frozen=True)
class AffinityReport:
    """Task affinities, averaged over batches.

    Attributes:
        tasks: names of the T tasks, in the order of rows and columns.
        gradient_cosines: {stage: cosine similarities of gradients, shape (T, T)}.
        lookahead: fraction by which a step for the task of the row reduces the loss of the task
            of the column, shape (T, T).
        lr: learning rate of that step.
        batches: number of batches.
    """

    tasks: tuple[str, ...]
    gradient_cosines: dict[str, Tensor]
    lookahead: Tensor
    lr: float
    batches: int

    def get_matrices(self) -> dict[str, Tensor]:
        """Return all matrices by name, "look-ahead" last."""
        return {**self.gradient_cosines, "look-ahead": self.lookahead}

    def save(self, file: Path) -> None:
        """Write the report as JSON.

        Args:
            file: output file, written atomically.
        """
        values = {name: matrix.tolist() for name, matrix in self.get_matrices().items()}
        content = {"tasks": list(self.tasks), "rate": self.lr, "batches": self.batches, **values}
        write_json(file, content)


def measure_affinity(
    trained: TrainedModel, num_batches: int, lr: float | None = None
) -> AffinityReport:
    """Measure task affinities on the first training batches, augmented as during training.

    See `densemtl.engine.task_affinity.TaskAffinity` for definitions and sources.

    Args:
        trained: a trained model and its configuration.
        num_batches: number of batches, at least 1.
        lr: learning rate of the look-ahead step; None uses the learning rate of the run.

    Returns:
        The affinities, averaged over the batches.

    Raises:
        ConfigError: if `num_batches` or `lr` is not positive.
        ModelError: if the tasks share no parameters.
        DataError: if files of the dataset are missing or invalid.
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
    """Draw each matrix as a heat map with its values.

    Args:
        affinity: result of `measure_affinity`.
        file: image file, written atomically.
    """
    plot_matrices(affinity.get_matrices(), affinity.tasks, file)


def plot_matrices(matrices: Mapping[str, Tensor], tasks: Sequence[str], file: Path) -> None:
    """Draw square matrices over tasks as heat maps with their values.

    Args:
        matrices: {title: matrix (T, T)}.
        tasks: names of rows and columns.
        file: image file, written atomically.
    """
    from matplotlib.figure import Figure

    side = 1.6 + CELL_INCHES * len(tasks)
    figure = Figure(figsize=(side * len(matrices), side), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        _plot_matrix(axis, name, matrix, tasks)
    with atomic_write(file) as tmp_path:
        figure.savefig(tmp_path, dpi=110, bbox_inches="tight")


def _plot_matrix(axis: Any, name: str, matrix: Tensor, tasks: Sequence[str]) -> None:
    furthest = max(float(matrix.abs().max()), 1e-12)
    axis.imshow(matrix, cmap="RdBu", vmin=-furthest, vmax=furthest)
    axis.set_title(name, fontsize=10)
    axis.set_xticks(range(len(tasks)), tasks, fontsize=8, rotation=30)
    axis.set_yticks(range(len(tasks)), tasks, fontsize=8)
    for row, values in enumerate(matrix.tolist()):
        for column, value in enumerate(values):
            dark = abs(value) > 0.6 * furthest
            color = "white" if dark else "black"
            axis.text(column, row, f"{value:.2g}", ha="center", va="center", color=color)

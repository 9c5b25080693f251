"""How the tasks of a trained network get on with each other, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densemtl.io.atomic import replacing, write_json
from densemtl.factory import build_auxiliary_tasks, build_dataset, build_train_loader
from densemtl.engine.task_affinity import Relations
from densemtl.errors import ConfigError
from densemtl.engine.loading import Loaded

AFFINITY = "affinity"

CELL = 0.75
"""Inches of a matrix's entry."""


@dataclass(frozen=True)
class Affinity:
    """Means over batches.

    Attributes:
        tasks: names of rows and columns.
        cosines: {place: tasks x tasks cosines of gradients}.
        lookahead: share of the column's loss that a step for the row's task takes away.
        rate: learning rate of that step.
        batches: how many were looked at.
    """

    tasks: tuple[str, ...]
    cosines: dict[str, Tensor]
    lookahead: Tensor
    rate: float
    batches: int

    def matrices(self) -> dict[str, Tensor]:
        """All by name."""
        return {**self.cosines, "look-ahead": self.lookahead}

    def save(self, file: Path) -> None:
        """Write as JSON, whole or not at all."""
        values = {name: matrix.tolist() for name, matrix in self.matrices().items()}
        told = {"tasks": list(self.tasks), "rate": self.rate, "batches": self.batches, **values}
        write_json(file, told)


def measure(loaded: Loaded, batches: int, rate: float | None = None) -> Affinity:
    """Look at the first batches of the training set, as a run sees them.

    Args:
        loaded: a trained network.
        batches: how many.
        rate: of the look-ahead step; None for the run's own learning rate.

    Raises:
        ConfigError: no batch at all, or a rate that is not positive.
        ModelError: tasks share no parameters.
        DataError: the data is not there, or not as expected.
    """
    experiment = loaded.experiment
    step = experiment.optim.lr if rate is None else rate
    if batches < 1 or step <= 0:
        raise ConfigError(f"--batches {batches}, --rate {step:g}: both must be more than 0")
    tasks = [*loaded.tasks, *build_auxiliary_tasks(experiment)]
    relations = Relations(loaded.model, tasks, loaded.precision)
    loader = build_train_loader(experiment, build_dataset(experiment, "train"), tasks, False)
    cosines: list[dict[str, Tensor]] = []
    lookaheads: list[Tensor] = []
    for batch in islice(loader, batches):
        cosines.append(relations.cosines(batch))
        lookaheads.append(relations.affinity(batch, step))
    means = {place: _mean([each[place] for each in cosines]) for place in relations.stages}
    names = tuple(task.name for task in tasks)
    return Affinity(names, means, _mean(lookaheads), step, len(lookaheads))


def _mean(matrices: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(matrices)).mean(dim=0).cpu()


def draw_affinity(affinity: Affinity, file: Path) -> None:
    """Write a picture, each matrix with its numbers."""
    from matplotlib.figure import Figure

    matrices = affinity.matrices()
    side = 1.6 + CELL * len(affinity.tasks)
    figure = Figure(figsize=(side * len(matrices), side), layout="constrained")
    axes = figure.subplots(1, len(matrices), squeeze=False)[0]
    for axis, (name, matrix) in zip(axes, matrices.items(), strict=True):
        _draw(axis, name, matrix, affinity.tasks)
    with replacing(file) as draft:
        figure.savefig(draft, dpi=110)


def _draw(axis: Any, name: str, matrix: Tensor, tasks: Sequence[str]) -> None:
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

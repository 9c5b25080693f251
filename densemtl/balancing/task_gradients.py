"""What a rule that weighs gradients is shown of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class TaskGradients:
    """The tasks' gradients where they meet, in double precision on the CPU.

    Attributes:
        gramian: TxT products of the gradients.
        losses: T values, weighted as the gradients are.
        tasks: which of the run's tasks these are, by number.
        step: number of the step, from 1; the same in every process.
    """

    gramian: Tensor
    losses: Tensor
    tasks: tuple[int, ...]
    step: int

    @property
    def norms(self) -> Tensor:
        """T lengths of the gradients."""
        return self.gramian.diagonal().sqrt()

    @property
    def cosines(self) -> Tensor:
        """TxT cosines between the gradients; 0 with one that is 0."""
        norms = self.norms
        return torch.where(self.gramian == 0, 0, self.gramian / torch.outer(norms, norms))

    def only(self, tasks: Sequence[int]) -> TaskGradients:
        """Those of some tasks."""
        chosen = list(tasks)
        return TaskGradients(
            self.gramian[chosen][:, chosen], self.losses[chosen], tuple(chosen), self.step
        )

    def measures(self, names: Sequence[str]) -> dict[str, float]:
        """{"norm/TASK" and "cosine/ONE~OTHER": value} for the log; 0 what is not finite."""
        norms = torch.nan_to_num(self.norms, 0, 0, 0).tolist()
        cosines = torch.nan_to_num(self.cosines, 0, 0, 0).tolist()
        pairs = combinations(range(len(names)), 2)
        return {
            **{f"norm/{name}": norm for name, norm in zip(names, norms, strict=True)},
            **{f"cosine/{names[i]}~{names[j]}": cosines[i][j] for i, j in pairs},
        }

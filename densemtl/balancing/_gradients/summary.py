"""What a gradient balancing method computes its weights from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class GradientSummary:
    """The gradients of the tasks in one optimizer step, in double precision on the CPU.

    Attributes:
        gramian: TxT inner products of the gradients.
        losses: T losses, including the option `weights`, as the gradients do.
        tasks: indices of these tasks among the tasks of the run.
        step: number of the step, starting at 1; the same on every rank.
    """

    gramian: Tensor
    losses: Tensor
    tasks: tuple[int, ...]
    step: int

    @property
    def norms(self) -> Tensor:
        """Return the T norms of the gradients."""
        return self.gramian.diagonal().sqrt()

    @property
    def cosines(self) -> Tensor:
        """Return the TxT cosines between the gradients; 0 with a gradient that is 0."""
        norms = self.norms
        return torch.where(self.gramian == 0, 0, self.gramian / torch.outer(norms, norms))

    def select(self, tasks: Sequence[int]) -> GradientSummary:
        """Return the summary of some of the tasks."""
        index = list(tasks)
        return GradientSummary(
            self.gramian[index][:, index], self.losses[index], tuple(index), self.step
        )

    def log_values(self, names: Sequence[str]) -> dict[str, float]:
        """Return {"norm/TASK" and "cosine/TASK~TASK": value}, with 0 for non-finite values."""
        norms = torch.nan_to_num(self.norms, 0, 0, 0).tolist()
        cosines = torch.nan_to_num(self.cosines, 0, 0, 0).tolist()
        pairs = combinations(range(len(names)), 2)
        return {
            **{f"norm/{name}": norm for name, norm in zip(names, norms, strict=True)},
            **{f"cosine/{names[i]}~{names[j]}": cosines[i][j] for i, j in pairs},
        }

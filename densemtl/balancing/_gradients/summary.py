"""Summary of the gradients, from which gradient methods compute their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor


@dataclass(frozen=True)
class GradientSummary:
    """Norms and inner products of the gradients of the tasks in one optimizer step.

    All tensors are in double precision and on the CPU.

    Attributes:
        gramian: inner products of the gradients, shape (T, T).
        losses: losses of the joint batch, shape (T,). Like the gradients, they include the factors
            of the option `weights`.
        tasks: indices of these tasks among the tasks of the run.
        step: number of the optimizer step, starting at 1; the same on every rank.

    Example:
        >>> import torch
        >>> gramian = torch.tensor([[1.0, -1.0], [-1.0, 4.0]])
        >>> gradients = GradientSummary(gramian, losses=torch.ones(2), tasks=(0, 1), step=1)
        >>> gradients.norms
        tensor([1., 2.])
        >>> gradients.log_values(["semseg", "depth"])
        {'norm/semseg': 1.0, 'norm/depth': 2.0, 'cosine/semseg~depth': -0.5}
    """

    gramian: Tensor
    losses: Tensor
    tasks: tuple[int, ...]
    step: int

    @property
    def norms(self) -> Tensor:
        """Norms of the gradients, shape (T,)."""
        return self.gramian.diagonal().sqrt()

    @property
    def cosines(self) -> Tensor:
        """Cosines between the gradients, shape (T, T); 0 for a gradient that is 0."""
        norms = self.norms
        return torch.where(self.gramian == 0, 0, self.gramian / torch.outer(norms, norms))

    def select(self, tasks: Sequence[int]) -> GradientSummary:
        """Return the summary of some of the tasks.

        Args:
            tasks: indices into the tasks of this summary.

        Returns:
            The summary of the selected tasks, in the given order.
        """
        index = list(tasks)
        return GradientSummary(
            self.gramian[index][:, index], self.losses[index], tuple(index), self.step
        )

    def log_values(self, names: Sequence[str]) -> dict[str, float]:
        """Return the norms and cosines for the log.

        Args:
            names: the names of the tasks of this summary.

        Returns:
            {"norm/TASK" or "cosine/TASK~TASK": value}, with 0 for non-finite values.
        """
        norms = torch.nan_to_num(self.norms, 0, 0, 0).tolist()
        cosines = torch.nan_to_num(self.cosines, 0, 0, 0).tolist()
        pairs = combinations(range(len(names)), 2)
        return {
            **{f"norm/{name}": norm for name, norm in zip(names, norms, strict=True)},
            **{f"cosine/{names[i]}~{names[j]}": cosines[i][j] for i, j in pairs},
        }

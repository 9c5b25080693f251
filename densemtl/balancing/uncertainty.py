"""Uncertainty weighting (Kendall et al., CVPR 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from densemtl.balancing.base import LossWeighting
from densemtl.tasks.base import Task
from densemtl.tasks.direction import Direction
from densemtl.tasks.regression import Regression


class Uncertainty(LossWeighting):
    """Loss weights learned from the homoscedastic uncertainty of each task.

    Kendall et al., "Multi-task learning using uncertainty to weigh losses for scene geometry and
    semantics", CVPR 2018, section 3.2. Each task learns s = log(variance). Its loss L becomes
    exp(-s) L + s/2 for classification and exp(-s) L / 2 + s/2 for regression. A loss of exactly 0
    (no label in the batch) does not change s.

    Args:
        tasks: the tasks of the run.
        initial: initial value of s; 0 gives weights 1 (classification) and 1/2 (regression).

    Example:
        >>> import densemtl, torch
        >>> tasks = densemtl.create_tasks(["semseg", "depth"], data="nyud")
        >>> method = Uncertainty(tasks)
        >>> method.weights(torch.tensor([2.0, 0.5])).tolist()
        [1.0, 0.5]
    """

    needs_joint_losses: ClassVar[bool] = False
    factor: Tensor

    def __init__(
        self, tasks: Sequence[Task], *, initial: Annotated[float, Field(ge=-50, le=50)] = 0.0
    ) -> None:
        super().__init__(tasks)
        regresses = [isinstance(task, (Regression, Direction)) for task in tasks]
        factor = torch.where(torch.tensor(regresses), 0.5, 1.0)
        self.register_buffer("factor", factor, persistent=False)
        self.log_variance = nn.Parameter(torch.full((len(tasks),), float(initial)))

    def weights(self, losses: Tensor) -> Tensor:
        """Return the inverse variances, halved for regression.

        Args:
            losses: losses of the joint batch, shape (T,); not used.

        Returns:
            The loss weights, shape (T,), with a graph to the log variances.
        """
        return self.factor * torch.exp(-self.log_variance)

    def total(self, weights: Tensor, losses: Tensor) -> Tensor:
        """Return the weighted sum of the losses plus half the log variances.

        The log variances prevent the weights from converging to 0.

        Args:
            weights: the loss weights, shape (T,).
            losses: losses of the joint batch, shape (T,).

        Returns:
            The scalar to minimize.
        """
        penalty = torch.where(losses == 0, 0.0, self.log_variance / 2)
        return (weights * losses + penalty).sum()

"""PCGrad: gradient surgery for multi-task learning (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from densemtl.balancing.task_gradients import TaskGradients
from densemtl.balancing.torchjd import TorchJDBalancer, seeded


class PCGrad(TorchJDBalancer):
    """The sum of the gradients, each freed of what conflicts with the others, one by one (alg. 1).

    The others come in a random order, drawn anew each step from the number of the step.
    """

    torchjd_name: ClassVar[str] = "PCGradWeighting"

    def weigh(self, seen: TaskGradients) -> Tensor:
        """Weights of the projected gradients' sum."""
        with seeded(seen.step):
            return super().weigh(seen)

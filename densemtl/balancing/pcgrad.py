"""PCGrad: gradient surgery for multi-task learning (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing._torchjd import TorchJDBalancer, fork_rng_with_seed


class PCGrad(TorchJDBalancer):
    """Sum of the gradients, each projected onto the normal plane of those that conflict with it.

    Yu et al., "Gradient surgery for multi-task learning", NeurIPS 2020, algorithm 1. Each gradient
    is compared with the others one by one. If the inner product is negative, its component along
    the other gradient is removed. The order of the others is random and depends only on the number
    of the step.
    """

    weighting_name = "PCGradWeighting"

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the sum of the projected gradients.

        Args:
            gradients: the gradients of T tasks.

        Returns:
            The weights, shape (T,).
        """
        with fork_rng_with_seed(gradients.step):
            return super().weights(gradients)

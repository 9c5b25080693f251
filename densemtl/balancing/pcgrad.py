"""PCGrad: gradient surgery for multi-task learning (Yu et al., NeurIPS 2020)."""

from __future__ import annotations

from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing._torchjd import TorchJDBalancer, fork_rng_with_seed


class PCGrad(TorchJDBalancer):
    """The sum of the gradients, each without what conflicts with the others, one by one (alg. 1).

    The order of the others is random and depends only on the number of the step.
    """

    weighting_name = "PCGradWeighting"

    def weights(self, gradients: GradientSummary) -> Tensor:
        """Return the weights of the sum of the projected gradients."""
        with fork_rng_with_seed(gradients.step):
            return super().weights(gradients)

"""Adapters that scale the singular values of the weight of a layer."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.adapters.low_rank import Adapter, Layer, apply_weight


class DecomposedWeight(nn.Module):
    """Singular value decomposition of a frozen weight, which is computed again if it changes.

    Args:
        weight: the weight, flattened to a matrix of one row per output.
        num_parts: number of equal parts of the outputs that are decomposed separately, such as 3
            for queries, keys and values.

    Attributes:
        left: left singular vectors (num_parts, outputs, K).
        values: singular values (num_parts, K), in descending order.
        right: right singular vectors (num_parts, K, inputs).
    """

    left: Tensor
    values: Tensor
    right: Tensor

    def __init__(self, weight: Tensor, num_parts: int = 1) -> None:
        super().__init__()
        self._num_parts = num_parts
        self._weight = [weight]  # in a list, so that it is no parameter of this module
        self._version = -1
        for name in ("left", "values", "right"):
            self.register_buffer(name, None, persistent=False)
        self.update(weight)

    def train(self, mode: bool = True) -> DecomposedWeight:
        """Switch to training or evaluation mode, and decompose the weight again if it has changed.

        Args:
            mode: True for training.

        Returns:
            The module itself.
        """
        super().train(mode)
        self.update(self._weight[0])
        return self

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """Decompose the weight if it has changed, as after loading a checkpoint.

        Args:
            weight: the current weight.
        """
        if self._version == weight._version or (weight.is_meta and self.values is not None):
            return
        matrices = torch.unflatten(weight.flatten(1), 0, (self._num_parts, -1))
        is_half = weight.dtype in (torch.float16, torch.bfloat16)
        parts = torch.linalg.svd(matrices.float() if is_half else matrices, full_matrices=False)
        self.left, self.values, self.right = (part.to(weight.dtype) for part in parts)
        self._version = weight._version


class SingularValueAdapter(Adapter):
    r"""Adapter that scales the singular values of a weight by a smooth function of their index.

    The weight $W = U \mathrm{diag}(\sigma) V^\top$ becomes $U \mathrm{diag}(\sigma e^f) V^\top$,
    with the same singular vectors. The function $f$ of the index of a singular value is piecewise
    linear between knots of equal distance, and starts at 0, so that the layer is unchanged at the
    beginning. The idea is that of Mantri et al., "DiTASK: Multi-Task Fine-Tuning with Diffeomorphic
    Transformations", CVPR 2025, which transforms the singular values by flows of piecewise affine
    velocity; these start at random, and cannot exceed the range of the given singular values.

    Args:
        layer: the layer, whose weight must be frozen.
        num_knots: number of trained values.
        decomposition: the decomposed weight, which several adapters of the layer may share; by
            default, the adapter decomposes it. The function is the same for all parts of it.

    Attributes:
        knots: values of $f$ at the knots, from the largest to the smallest singular value.

    Example:
        >>> layer = nn.Linear(6, 4).requires_grad_(False)
        >>> adapter = SingularValueAdapter(layer, num_knots=3)
        >>> adapter.knots
        Parameter containing:
        tensor([0., 0., 0.], requires_grad=True)
        >>> torch.equal(adapter.compute_weight(layer.weight), layer.weight)
        True
    """

    reads_own_stream: ClassVar[bool] = True

    def __init__(
        self, layer: Layer, num_knots: int, decomposition: DecomposedWeight | None = None
    ) -> None:
        super().__init__()
        self.knots = nn.Parameter(layer.weight.new_zeros(num_knots))
        self.decomposition = decomposition or DecomposedWeight(layer.weight)

    def forward(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        """Compute the output of the layer with the adapter.

        Args:
            layer: the layer.
            x: input of the layer, (.., C_in) of a linear layer or (B, C_in, H, W).
            output: output of the layer without the adapter, for `x`.

        Returns:
            Output with the adapter, of the shape of `output`.
        """
        return output + apply_weight(layer, x, self._compute_change(layer.weight))

    def compute_weight(self, weight: Tensor) -> Tensor:
        """Compute the weight of a layer without adapter that has the same output.

        Args:
            weight: frozen weight of the layer.

        Returns:
            The weight with scaled singular values, of the same shape.
        """
        return weight + self._compute_change(weight)

    def _compute_change(self, weight: Tensor) -> Tensor:
        """Return the difference of the weights with scaled and with given singular values."""
        parts = self.decomposition
        if not torch.compiler.is_compiling():  # `train` was called before
            parts.update(weight)
        count = parts.values.shape[-1]
        exponents = F.interpolate(
            self.knots[None, None], size=count, mode="linear", align_corners=True
        )[0]
        scaled = parts.left * (parts.values * exponents.expm1())[:, None]
        return (scaled @ parts.right).view_as(weight)

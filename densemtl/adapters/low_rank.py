"""Adapters that add a matrix of low rank to the weight of a layer (LoRA)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.adapters.rank_selection import RankSelection

Layer = nn.Linear | nn.Conv2d
"""Layer that may have an adapter."""


class Adapter(nn.Module, ABC):
    """Base class of adapters, which change the output of a layer whose weight is frozen.

    Attributes:
        reads_own_stream: whether the adapter of a task changes the output for the stream of the
            task, or that for the shared stream; see `task_streams.StreamLinear`.
    """

    reads_own_stream: ClassVar[bool] = False

    @abstractmethod
    def forward(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        """Compute the output of the layer with the adapter.

        Args:
            layer: the layer.
            x: input of the layer, (.., C_in) of a linear layer or (B, C_in, H, W).
            output: output of the layer without the adapter, for `x`.

        Returns:
            Output with the adapter, of the shape of `output`.
        """

    @abstractmethod
    def compute_weight(self, weight: Tensor) -> Tensor:
        """Compute the weight of a layer without adapter that has the same output.

        Args:
            weight: frozen weight of the layer.

        Returns:
            The changed weight, of the same shape.
        """


class LowRankAdapter(Adapter):
    r"""Adapter that adds a matrix of low rank to a weight: $W + s B A$.

    Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022, section 4.1. $A$ has
    the initialization of a linear layer, and $B$ starts at 0, so that the layer is unchanged at the
    beginning. For a convolution, $A$ is a convolution of the same size, stride and padding to
    `rank` channels, and $B$ a 1x1 convolution.

    Args:
        layer: the layer, whose shape the adapter has.
        rank: number of rows of $A$ and columns of $B$.
        scale: factor $s$ of the product. It is used as it is, and not divided by the rank.
        dropout: dropout rate of the input of $A$ in training.
        ranks: selection of the rows of $A$ and columns of $B$ that are used; None uses all.

    Attributes:
        down: $A$, (rank, C_in) or (rank, C_in, kernel height, kernel width).
        up: $B$, (C_out, rank).
        ranks: the selection, or None.

    Example:
        >>> layer = nn.Linear(6, 4)
        >>> adapter = LowRankAdapter(layer, rank=2)
        >>> sum(parameter.numel() for parameter in adapter.parameters())
        20
        >>> torch.equal(adapter.compute_weight(layer.weight), layer.weight)
        True
    """

    def __init__(
        self,
        layer: Layer,
        rank: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        ranks: RankSelection | None = None,
    ) -> None:
        super().__init__()
        weight = layer.weight
        self.down = nn.Parameter(weight.new_empty(rank, *weight.shape[1:]))
        self.up = nn.Parameter(weight.new_zeros(weight.shape[0], rank))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)
        self.ranks = ranks
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        """Compute the output of the layer with the adapter.

        Args:
            layer: the layer.
            x: input of the layer, (.., C_in) of a linear layer or (B, C_in, H, W).
            output: output of the layer without the adapter, for `x`.

        Returns:
            Output with the adapter, of the shape of `output`.
        """
        return output + self.compute_change(layer, x)

    def compute_change(
        self, layer: Layer, x: Tensor, filter_low: nn.Module | None = None
    ) -> Tensor:
        """Compute the change of the output of the layer.

        Args:
            layer: the layer.
            x: input of the layer.
            filter_low: filter of $A x$, or None.

        Returns:
            $s B A x$, of the shape of the output.
        """
        return self._compute_change(layer, x, self._select_rows(), filter_low)

    def _select_rows(self) -> Tensor:
        """Return A with zeros in the rows that are not used."""
        if self.ranks is None:
            return self.down
        used: Tensor = self.ranks()
        return self.down * used.to(self.down.dtype).view(-1, *[1] * (self.down.ndim - 1))

    def _compute_change(
        self, layer: Layer, x: Tensor, rows: Tensor, filter_low: nn.Module | None = None
    ) -> Tensor:
        """Return the change of the output by the given rows of A."""
        low = apply_weight(layer, self.dropout(x), rows)
        if filter_low is not None:
            low = filter_low(low)
        if isinstance(layer, nn.Conv2d):
            return self.scale * F.conv2d(low, self.up[:, :, None, None])
        return self.scale * F.linear(low, self.up)

    def compute_weight(self, weight: Tensor) -> Tensor:
        """Compute the weight of a layer without adapter that has the same output.

        Args:
            weight: frozen weight of the layer.

        Returns:
            $W + s B A$, of the same shape.
        """
        return self._change_weight(weight, self._select_rows())

    def _change_weight(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Return the weight that is changed by the given rows of A."""
        change = self.scale * (self.up @ rows.flatten(1))
        return weight + change.view_as(weight)


class DoraAdapter(LowRankAdapter):
    r"""Low-rank adapter that changes the direction and the norm of each row of a weight.

    Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", ICML 2024, section 4. The row $w$ of
    the weight of an output becomes $(1 + g) \lVert w \rVert v / \lVert v \rVert$, where $v$ is
    the row of $W + s B A$. The gradient does not flow through $\lVert v \rVert$ (section 4.3).
    The publication trains the norm $(1 + g) \lVert w \rVert$ itself. The relative change $g$,
    which starts at 0, still fits if another checkpoint is loaded.

    Args:
        layer: the layer, whose shape the adapter has.
        rank: number of rows of $A$ and columns of $B$.
        scale: factor $s$ of the product.
        dropout: dropout rate of the input of $A$ in training.
        ranks: selection of the rows of $A$ and columns of $B$ that are used; None uses all.

    Attributes:
        gain: $g$, (C_out).
    """

    def __init__(
        self,
        layer: Layer,
        rank: int,
        *,
        scale: float = 1.0,
        dropout: float = 0.0,
        ranks: RankSelection | None = None,
    ) -> None:
        super().__init__(layer, rank, scale=scale, dropout=dropout, ranks=ranks)
        self.gain = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]))

    def forward(self, layer: Layer, x: Tensor, output: Tensor) -> Tensor:
        """Compute the output of the layer with the adapter.

        Args:
            layer: the layer.
            x: input of the layer, (.., C_in) of a linear layer or (B, C_in, H, W).
            output: output of the layer without the adapter, for `x`.

        Returns:
            Output with the adapter, of the shape of `output`.
        """
        shape = (-1, 1, 1) if isinstance(layer, nn.Conv2d) else (-1,)
        rows = self._select_rows()
        ratio = self._compute_ratio(layer.weight, rows).view(shape)
        unbiased = output if layer.bias is None else output - layer.bias.view(shape)
        return output + (ratio - 1) * unbiased + ratio * self._compute_change(layer, x, rows)

    def compute_weight(self, weight: Tensor) -> Tensor:
        """Compute the weight of a layer without adapter that has the same output.

        Args:
            weight: frozen weight of the layer.

        Returns:
            The weight with changed directions and norms, of the same shape.
        """
        rows = self._select_rows()
        changed = self._change_weight(weight, rows).flatten(1)
        return (self._compute_ratio(weight, rows)[:, None] * changed).view_as(weight)

    def _compute_ratio(self, weight: Tensor, rows: Tensor) -> Tensor:
        """Return the ratio (C_out) of the norms of the rows of the new weight and of W + s B A."""
        with torch.no_grad():
            changed = self._change_weight(weight, rows).flatten(1).norm(dim=1)
            smallest = torch.finfo(weight.dtype).tiny
            ratio: Tensor = weight.flatten(1).norm(dim=1) / changed.clamp(min=smallest)
        return (1 + self.gain) * ratio


def apply_weight(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a layer with another weight and bias.

    Args:
        layer: the layer, of which a convolution has a stride, a padding and a dilation.
        x: input of the layer.
        weight: weight of the layer; the number of outputs may differ.
        bias: bias of the layer, or None.

    Returns:
        The output.
    """
    if isinstance(layer, nn.Conv2d):
        output: Tensor = layer._conv_forward(x, weight, bias)
        return output
    return F.linear(x, weight, bias)

"""Marker of the features that all tasks share, where the autograd graph can be split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class DetachedFeatures:
    """Both sides of an autograd graph that is split at the shared features.

    Attributes:
        features: the feature maps that the shared part computed, with their graph; only those
            that require a gradient.
        leaves: the detached copies that the tasks read instead, in the same order. The maps of a
            pyramid are computed from each other, but each leaf collects only the gradient of the
            tasks that read this map.
    """

    features: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def detach(self, feature: Tensor) -> Tensor:
        """Detach a feature map and record the map and its detached copy.

        Args:
            feature: a feature map.

        Returns:
            The detached copy, which requires a gradient, and is the same if the map was detached
            before; the map itself if it requires none.
        """
        if not feature.requires_grad:
            return feature
        for known, leaf in zip(self.features, self.leaves, strict=True):
            if known is feature:
                return leaf
        leaf = feature.detach().requires_grad_()
        self.features.append(feature)
        self.leaves.append(leaf)
        return leaf

    def backward(self) -> None:
        """Run the shared part backward from the gradients that the leaves have collected."""
        gradients = {
            feature: leaf.grad
            for feature, leaf in zip(self.features, self.leaves, strict=True)
            if leaf.grad is not None
        }
        if gradients:  # otherwise the shared part is frozen, or no task reads it
            torch.autograd.backward(list(gradients), list(gradients.values()))


class SharedFeatures(nn.Module):
    """Identity that marks the features that the shared part of a network passes to all tasks.

    Decoders apply it once per forward pass at the end of the shared part, so that the gradients of
    the tasks can be collected there.

    Example:
        >>> import torch
        >>> weight = torch.ones(2, requires_grad=True)
        >>> shared_features = SharedFeatures()
        >>> with shared_features.detach() as detached:
        ...     (feature,) = shared_features([3 * weight])
        >>> (feature**2).sum().backward()
        >>> detached.leaves[0].grad
        tensor([6., 6.])
        >>> weight.grad is None
        True
    """

    def __init__(self) -> None:
        super().__init__()
        self._detached: DetachedFeatures | None = None

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features unchanged, or detached copies inside `detach()`.

        Args:
            features: maps (B, C_l, H_l, W_l) of the shared part.

        Returns:
            One map per feature.
        """
        if self._detached is None:
            return list(features)
        return [self._detached.detach(feature) for feature in features]

    @contextmanager
    def detach(self) -> Iterator[DetachedFeatures]:
        """Split the graph of the forward pass that runs inside this context.

        Yields:
            The features and their detached copies; they stay valid after the context ends.
        """
        self._detached = DetachedFeatures()
        try:
            yield self._detached
        finally:
            self._detached = None

"""The features that the tasks share, and how the graph is split there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class DetachedFeatures:
    """Two halves of a graph that is split at the shared features.

    Attributes:
        features: the feature maps as the shared part computed them, with their graph; only those
            that require a gradient.
        leaves: the detached copies that the tasks read instead, in the same order. The maps of a
            pyramid are computed from each other; each leaf collects only the gradient of the tasks
            that read this map.
    """

    features: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def detach(self, feature: Tensor) -> Tensor:
        """Return a leaf that takes the place of a feature map, and record both."""
        if not feature.requires_grad:
            return feature
        leaf = feature.detach().requires_grad_()
        self.features.append(feature)
        self.leaves.append(leaf)
        return leaf


class SharedFeatures(nn.Module):
    """Identity that marks the features which the shared part of a network passes to all tasks.

    Decoders apply it once per forward pass, at the place where the shared part ends, so that the
    gradients of the tasks can be collected there.
    """

    def __init__(self) -> None:
        super().__init__()
        self._detached: DetachedFeatures | None = None

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the features as they are, or detached inside `detach()`."""
        if self._detached is None:
            return list(features)
        return [self._detached.detach(feature) for feature in features]

    @contextmanager
    def detach(self) -> Iterator[DetachedFeatures]:
        """Split the graph of the forward pass inside; the yielded halves stay valid afterwards."""
        self._detached = DetachedFeatures()
        try:
            yield self._detached
        finally:
            self._detached = None

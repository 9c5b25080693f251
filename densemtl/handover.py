"""The place in a network where what all tasks share ends and what each does of it begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor, nn


@dataclass(frozen=True)
class Cut:
    """A graph in two: what made the maps, and what was made of them.

    Attributes:
        maps: as the shared part made them; those alone that need a gradient.
        leaves: what the tasks were handed instead, equal and each for itself. The maps of a
            pyramid are made of each other, so that only leaves tell what a task wants of each.
    """

    maps: list[Tensor] = field(default_factory=list)
    leaves: list[Tensor] = field(default_factory=list)

    def pass_on(self, handed: Tensor) -> Tensor:
        """A map -> the leaf that takes its place."""
        if not handed.requires_grad:
            return handed
        leaf = handed.detach().requires_grad_()
        self.maps.append(handed)
        self.leaves.append(leaf)
        return leaf


class Handover(nn.Module):
    """Passes on what the shared part of an architecture hands to all tasks, once a forward pass.

    Architectures call it there, so that gradients of tasks can be told apart at that place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._cut: Cut | None = None

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps as they are, or the leaves of a cut."""
        return list(maps) if self._cut is None else [self._cut.pass_on(each) for each in maps]

    @contextmanager
    def cut(self) -> Iterator[Cut]:
        """Cut the graph of what runs inside; the cut stays valid after."""
        self._cut = Cut()
        try:
            yield self._cut
        finally:
            self._cut = None

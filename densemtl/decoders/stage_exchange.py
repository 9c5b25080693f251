"""What cross-stitch, NDDR and their kin share: a network a task, meeting after every stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from densemtl.decoders.base import MakeBackbone, MakeHead
from densemtl.decoders.task_networks import OwnNetworks, own_share
from densemtl.config.constraints import Fraction
from densemtl.backbones.backbone import Backbone
from densemtl.backbones.staged_forward import Midway
from densemtl.tasks.base import Task
from densemtl.types import Predictions

STEM = 0
"""The level of what stage 0 starts from; stage i gives level i + 1."""


class ParallelNetworks(OwnNetworks):
    """Networks whose features meet after every stage, in `exchange`.

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        alpha: share of its own features that a task starts with; the others have equal parts of
            the rest, so that a row sums to 1. At 1 the start is one network a task. The survey has
            .9 for two tasks, .8 for five.

    Attributes:
        shares: TxT, what each task (row) takes of each task's features (column) at the start.

    Raises:
        ModelError: a backbone that cannot be run stage by stage.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        *,
        alpha: Fraction = 0.9,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks)
        own, other = own_share(alpha, len(tasks))
        count = range(len(tasks))
        self.shares = [[own if row == column else other for column in count] for row in count]
        for network in self._networks():
            network.check_stages()

    @abstractmethod
    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """All tasks' BxCxHxW features of one level -> what each goes on with, in order of tasks."""

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        networks = self._networks()
        midways = self._meet(STEM, [network.run_stem(image) for network in networks])
        levels = []
        for stage in range(len(self.spec)):
            pairs = zip(networks, midways, strict=True)
            own = [network.run_stage(stage, midway) for network, midway in pairs]
            midways = self._meet(stage + 1, own)
            levels.append([midway.feature for midway in midways])
        return Predictions(self.predict([list(pyramid) for pyramid in zip(*levels, strict=True)]))

    def _meet(self, level: int, midways: list[Midway]) -> list[Midway]:
        """The maps exchanged; what is no map stays each network's own."""
        features = self.exchange(level, [midway.feature for midway in midways])
        pairs = zip(midways, features, strict=True)
        return [replace(midway, feature=feature) for midway, feature in pairs]

    def predict(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Each task's pyramid -> its logits."""
        heads = zip(self.heads.items(), pyramids, strict=True)
        return {task: head(pyramid) for (task, head), pyramid in heads}

    def _networks(self) -> list[Backbone]:
        return [network for network in self.backbones.values() if isinstance(network, Backbone)]

    def _first(self) -> Backbone:
        return self._networks()[0]

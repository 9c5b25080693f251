"""What cross-stitch, NDDR and their kin share: a network a task, meeting after every stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from densemtl.backbones.backbone import Backbone
from densemtl.backbones.staged_forward import StageState
from densemtl.config.constraints import UnitInterval
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.task_networks import PerTaskNetworks, split_alpha
from densemtl.tasks.base import Task
from densemtl.types import Predictions

STEM_LEVEL = 0
"""The level of what stage 0 starts from; stage i gives level i + 1."""


class StageExchangeNetworks(PerTaskNetworks):
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
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        alpha: UnitInterval = 0.9,
    ) -> None:
        super().__init__(make_backbone, make_head, tasks)
        own_weight, other_weight = split_alpha(alpha, len(tasks))
        count = range(len(tasks))
        self.shares = [
            [own_weight if row == column else other_weight for column in count] for row in count
        ]
        for network in self._list_backbones():
            network.check_stages()

    @abstractmethod
    def exchange(self, level: int, features: list[Tensor]) -> list[Tensor]:
        """All tasks' BxCxHxW features of one level -> what each goes on with, in order of tasks."""

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        networks = self._list_backbones()
        midways = self._exchange_states(
            STEM_LEVEL, [network.run_stem(image) for network in networks]
        )
        levels = []
        for stage in range(len(self.feature_info)):
            pairs = zip(networks, midways, strict=True)
            states = [network.run_stage(stage, midway) for network, midway in pairs]
            midways = self._exchange_states(stage + 1, states)
            levels.append([midway.feature for midway in midways])
        return Predictions(
            self.decode_pyramids([list(pyramid) for pyramid in zip(*levels, strict=True)])
        )

    def _exchange_states(self, level: int, states: list[StageState]) -> list[StageState]:
        """The maps exchanged; what is no map stays each network's own."""
        features = self.exchange(level, [midway.feature for midway in states])
        pairs = zip(states, features, strict=True)
        return [replace(midway, feature=feature) for midway, feature in pairs]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Each task's pyramid -> its logits."""
        heads = zip(self.heads.items(), pyramids, strict=True)
        return {task: head(pyramid) for (task, head), pyramid in heads}

    def _list_backbones(self) -> list[Backbone]:
        return [network for network in self.backbones.values() if isinstance(network, Backbone)]

    def _get_first_backbone(self) -> Backbone:
        return self._list_backbones()[0]

"""Base class of decoders whose task networks exchange features after every backbone stage."""

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
"""Level of the output of the stem; the output of stage i has level i + 1."""


class StageExchangeNetworks(PerTaskNetworks):
    """Base class of decoders whose task networks exchange features after every backbone stage.

    Subclasses implement `exchange`.

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        alpha: initial weight of a task's own features. The features of the other tasks have equal
            parts of the rest, so that the weights of a task sum to 1. With 1, the decoder starts
            as separate single-task networks. Vandenhende et al., TPAMI 2021, use 0.9 for two tasks
            and 0.8 for five.

    Attributes:
        shares: T lists of T numbers: the initial weight of each task's features (columns) in the
            exchanged feature of each task (rows).

    Raises:
        ModelError: if the backbone cannot be run stage by stage.
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
        """Exchange the features of all tasks at one level.

        Args:
            level: `STEM_LEVEL` for the output of the stem, i + 1 for the output of stage i.
            features: one map (B, C, H, W) per task, in the order of tasks.

        Returns:
            One map of the same shape per task, which is the input of the task's next stage.
        """

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        networks = self._list_backbones()
        states = self._exchange_states(
            STEM_LEVEL, [network.run_stem(image) for network in networks]
        )
        levels = []
        for stage in range(len(self.feature_info)):
            pairs = zip(networks, states, strict=True)
            outputs = [network.run_stage(stage, state) for network, state in pairs]
            states = self._exchange_states(stage + 1, outputs)
            levels.append([state.feature for state in states])
        return Predictions(
            self.decode_pyramids([list(pyramid) for pyramid in zip(*levels, strict=True)])
        )

    def _exchange_states(self, level: int, states: list[StageState]) -> list[StageState]:
        """Exchange the feature maps of the states; each network keeps its other tensors."""
        features = self.exchange(level, [state.feature for state in states])
        pairs = zip(states, features, strict=True)
        return [replace(state, feature=feature) for state, feature in pairs]

    def decode_pyramids(self, pyramids: list[list[Tensor]]) -> dict[str, Tensor]:
        """Predict each task from its feature pyramid.

        Args:
            pyramids: one list of maps (B, C_l, H_l, W_l), finest first, per task.

        Returns:
            {task: logits}.
        """
        heads = zip(self.heads.items(), pyramids, strict=True)
        return {task: head(pyramid) for (task, head), pyramid in heads}

    def _list_backbones(self) -> list[Backbone]:
        return [network for network in self.backbones.values() if isinstance(network, Backbone)]

    def _get_first_backbone(self) -> Backbone:
        return self._list_backbones()[0]

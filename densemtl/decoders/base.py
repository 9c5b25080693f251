"""What every architecture is: everything between the image and the logits, by one contract.

An architecture is handed a way to make backbones and builds as many as it needs. Hard sharing and
the decoder-focused methods make one and read its pyramid (`SharedBackboneDecoder`); the
encoder-focused ones make one a task, or one they drive stage by stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.base import Task
from densemtl.types import FeatureInfo, Predictions, SharingWeights

BackboneFactory = Callable[[], Backbone]
HeadFactory = Callable[[FeatureInfo, int], nn.Module]
"""(features, channels) -> a head: list of NCHW features -> logits at their finest used size."""


def make_heads(
    make_head: HeadFactory, feature_info: FeatureInfo, tasks: Sequence[Task]
) -> nn.ModuleDict:
    """{task: its own head on these features}."""
    return nn.ModuleDict({task.name: make_head(feature_info, task.channels) for task in tasks})


class Decoder(nn.Module, ABC):
    """Subclasses take (make_backbone, make_head, tasks) and keyword-only options."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)

    @abstractmethod
    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image, padded as the backbone asks -> logits at feature size."""

    @abstractmethod
    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Every parameter once: "shared", one group a task under its name, and "fusion"."""

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """What was learnt about sharing: {place: weights}; nothing where nothing is learnt.

        Called in evaluation mode, without gradients, between training steps.

        Args:
            image: Bx3xHxW as for `forward`, to measure gates and masks on; methods whose mixture
                does not depend on the image need not look at it.
        """
        return {}


class SharedBackboneDecoder(Decoder):
    """A decoder that reads one backbone's pyramid."""

    def __init__(self, make_backbone: BackboneFactory, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.backbone = make_backbone()
        self.shared_features = SharedFeatures()

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        return self.decode_features(self.shared_features(self.backbone(image)))

    @abstractmethod
    def decode_features(self, features: list[Tensor]) -> Predictions:
        """The pyramid, finest first -> logits at feature size."""

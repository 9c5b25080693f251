"""Customized sharing (Tang et al., RecSys 2020, "Progressive Layered Extraction", Fig. 1c)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.config.constraints import UnitInterval
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.task_networks import PerTaskNetworks, split_alpha
from densemtl.layers.channel_mixing import PyramidMixer
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions, SharingWeights


class CustomizedSharing(PerTaskNetworks):
    """Customized sharing: one shared backbone, and one backbone and one head per task.

    Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, Fig. 1c. At each level of the
    feature pyramid, a 1x1 convolution per task mixes the maps of the task's own backbone and of the
    shared backbone. The backbones exchange no features before, so that any backbone can be used.

    Args:
        make_backbone: factory of backbones; called once for the shared backbone and once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        alpha: initial weight of a task's own features; the shared features have the rest. With 1,
            the decoder starts as separate single-task networks; with 0, as hard sharing.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     "customized_sharing", backbone="test_resnet", tasks=["depth", "edge"]
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        alpha: UnitInterval = 0.5,
    ) -> None:
        shares = split_alpha(alpha, 2)
        super().__init__(make_backbone, make_head, tasks)
        self.shared_backbone, self.shared_features = make_backbone(), SharedFeatures()
        widths = self.feature_info.channels
        self.mixers = nn.ModuleDict({task.name: PyramidMixer(widths, shares) for task in tasks})

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        shared = self.shared_features(self.shared_backbone(image))
        final = {}
        for task, head in self.heads.items():
            task_features = self.backbones[task](image)
            final[task] = head(self.mixers[task]([task_features, shared]))
        return Predictions(final)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the weights of the own and the shared features in each task's mixer.

        Args:
            image: not used.

        Returns:
            {"level N": Frobenius norm of the convolution weights of both features for each task,
            relative to the norm of the identity}.
        """
        mixers = [mixer for mixer in self.mixers.values() if isinstance(mixer, PyramidMixer)]
        levels = torch.stack([mixer.compute_block_norms() for mixer in mixers], dim=1)
        return {
            f"level {level}": SharingWeights(self.task_names, ("own", "shared"), weights)
            for level, weights in enumerate(levels, start=1)
        }

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; one backbone is shared, the other backbones and the heads belong to
            their tasks, and the mixers are fusion parameters.
        """
        return {SHARED: list(self.shared_backbone.parameters()), **super().parameter_groups()}

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the mixers of all tasks."""
        return list(self.mixers.parameters())

"""Measurement of the learned sharing weights of a decoder between epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from densemtl.data.batching import EvalDataset
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runtime.execution import ExecutionConfig
from densemtl.types import SharingWeights
from densemtl.visualization.prediction_panels import pick_evenly_spaced

NUM_PROBE_IMAGES = 8


@dataclass(frozen=True)
class SharingProbe:
    """Fixed images of a run on which sharing weights are measured.

    Sharing weights may depend on the image, for example gates and attention masks. They are
    comparable between epochs because the images stay the same.

    Attributes:
        image: RGB images, (B, 3, H, W) uint8.
        execution: device, autocast type and memory layout.
    """

    image: Tensor
    execution: ExecutionConfig

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """Measure the sharing weights of a model.

        Args:
            model: a `MultiTaskModel`; left in evaluation mode.

        Returns:
            {"stage/task<-source": weight}; empty if the decoder learns no sharing weights.
        """
        assert isinstance(model, MultiTaskModel)
        model.eval()
        return flatten_weights(self.execution.forward(model.sharing_weights, self.image))


def make_sharing_probe(dataset: EvalDataset, execution: ExecutionConfig) -> SharingProbe:
    """Create a probe with evenly spaced images of a split.

    Args:
        dataset: validation images at the input size of the model.
        execution: device, autocast type and memory layout.

    Returns:
        A probe with at most 8 images.

    Raises:
        DataError: if an image cannot be read.
    """
    images = [
        dataset[index][0].image for index in pick_evenly_spaced(len(dataset), NUM_PROBE_IMAGES)
    ]
    image = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
    return SharingProbe(image.to(execution.device), execution)


def flatten_weights(weights_by_stage: Mapping[str, SharingWeights]) -> dict[str, float]:
    """Convert sharing weights to scalars for the log.

    Args:
        weights_by_stage: {location in the network: weights}.

    Returns:
        {"stage/task<-source": weight}.
    """
    return {
        f"{stage}/{task}<-{source}": weight
        for stage, sharing in weights_by_stage.items()
        for task, row in zip(sharing.tasks, sharing.weights.float().tolist(), strict=True)
        for source, weight in zip(sharing.sources, row, strict=True)
    }

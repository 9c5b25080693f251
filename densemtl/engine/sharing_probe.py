"""What an architecture learnt about sharing, measured between epochs."""

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
    """The same few images throughout a run, so that gates on them can be compared.

    Attributes:
        image: Bx3xHxW uint8.
        execution: where and how the model runs.
    """

    image: Tensor
    execution: ExecutionConfig

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """{"place/taker<-source": weight}; empty where the architecture learns nothing of it."""
        assert isinstance(model, MultiTaskModel)
        model.eval()
        return _flatten_weights(self.execution.forward(model.sharing_weights, self.image))


def make_sharing_probe(dataset: EvalDataset, execution: ExecutionConfig) -> SharingProbe:
    """Evenly spaced images.

    Raises:
        DataError: one of them cannot be read.
    """
    chosen = [
        dataset[index][0].image for index in pick_evenly_spaced(len(dataset), NUM_PROBE_IMAGES)
    ]
    image = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)
    return SharingProbe(image.to(execution.device), execution)


def _flatten_weights(weights_by_stage: Mapping[str, SharingWeights]) -> dict[str, float]:
    return {
        f"{stage}/{taker}<-{source}": weight
        for stage, sharing in weights_by_stage.items()
        for taker, row in zip(sharing.tasks, sharing.weights.float().tolist(), strict=True)
        for source, weight in zip(sharing.sources, row, strict=True)
    }

"""What an architecture learnt about sharing, measured between epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from densemtl.data.batching import EvalView
from densemtl.visualization.prediction_panels import spread_out
from densemtl.runtime.execution import Precision
from densemtl.models.multi_task_model import DenseModel
from densemtl.types import Sharing

IMAGES = 8


@dataclass(frozen=True)
class Probe:
    """The same few images throughout a run, so that gates on them can be compared.

    Attributes:
        image: Bx3xHxW uint8.
        precision: where and how the model runs.
    """

    image: Tensor
    precision: Precision

    @torch.no_grad()
    def measure(self, model: nn.Module) -> dict[str, float]:
        """{"place/taker<-source": weight}; empty where the architecture learns nothing of it."""
        assert isinstance(model, DenseModel)
        model.eval()
        return _flat(self.precision.run(model.sharing, self.image))


def make_probe(view: EvalView, precision: Precision) -> Probe:
    """Evenly spaced images.

    Raises:
        DataError: one of them cannot be read.
    """
    chosen = [view[index][0].image for index in spread_out(len(view), IMAGES)]
    image = torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)
    return Probe(image.to(precision.device), precision)


def _flat(places: Mapping[str, Sharing]) -> dict[str, float]:
    return {
        f"{place}/{taker}<-{source}": weight
        for place, sharing in places.items()
        for taker, row in zip(sharing.takers, sharing.weights.float().tolist(), strict=True)
        for source, weight in zip(sharing.sources, row, strict=True)
    }

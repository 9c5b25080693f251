"""Maximum F-measure of saliency as computed by the code of InvPT and TaskPrompter."""

from __future__ import annotations

import torch
from torch import Tensor

from densemtl.metrics.protocols.modern import SALIENCY
from densemtl.metrics.saliency import SaliencyMetric


class MaxFPublished(SaliencyMetric):
    """Maximum F-measure of saliency maps with a second sigmoid, in percent.

    The published code of InvPT and TaskPrompter takes probabilities for logits: it applies a
    sigmoid to them before it compares them with the thresholds .05, .10 .. .95. The sigmoid of a
    probability is between .5 and .731. Thresholds up to .50 therefore select all pixels, those
    from .75 select none, and .55, .60, .65 and .70 are probabilities of .20, .41, .62 and .85.
    `maxF` of the protocol `modern` compares the probabilities themselves. Use this metric to
    compare with tables that were made by that code.

    `maxF_published` is the maximum over thresholds of F with beta² = 0.3, precision and recall
    being those of the pixels of the whole dataset. It is NaN if no pixel is valid.

    Source: `evaluation/eval_sal.py` and `get_output` of the code of Ye and Xu, "Inverted pyramid
    multi-task transformer for dense scene understanding" (InvPT), ECCV 2022, and "TaskPrompter:
    Spatial-channel multi-task prompting for dense scene understanding", ICLR 2023.

    Example:
        >>> import torch
        >>> from densemtl.metrics.max_f_published import MaxFPublished
        >>> metric = MaxFPublished()
        >>> metric.update(torch.tensor([[[0.9, 0.95, 0.86]]]), torch.tensor([[[0, 1, 0]]]))
        >>> round(metric.compute()["maxF_published"], 2)  # no threshold separates .90 from .95
        39.39
    """

    def __init__(self) -> None:
        super().__init__(**SALIENCY)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add a batch.

        Args:
            prediction: probabilities, shape (B, H, W).
            target: 0 or 1, shape (B, H, W); 255 marks ignored pixels.
        """
        super().update(torch.sigmoid(prediction.float()), target)

    def compute(self) -> dict[str, float]:
        """Compute the score over all batches.

        Returns:
            `maxF_published` in percent.
        """
        return {"maxF_published": super().compute()["maxF"]}

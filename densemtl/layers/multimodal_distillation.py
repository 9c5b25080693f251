"""Multi-modal distillation between tasks, as in PAD-Net and at every scale of MTI-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MultiModalDistillation(nn.Module):
    """Multi-modal distillation module, which refines task features by those of other tasks.

    The refined feature of task t is `F_t + sum over a != t of conv(F_a) * sigmoid(conv(F_a))` with
    3x3 convolutions without bias: Xu et al., "PAD-Net: Multi-Tasks Guided
    Prediction-and-Distillation Network for Simultaneous Depth Estimation and Scene Parsing", CVPR
    2018, section 3.3, module C.

    Args:
        targets: names of the tasks whose features are refined.
        sources: names of the tasks whose features are read; they include the targets.
        channels: number of channels of every feature.

    Example:
        >>> import torch
        >>> distillation = MultiModalDistillation(["depth"], ["depth", "edge"], channels=4)
        >>> features = {name: torch.randn(2, 4, 8, 8) for name in ("depth", "edge")}
        >>> {name: tuple(refined.shape) for name, refined in distillation(features).items()}
        {'depth': (2, 4, 8, 8)}
    """

    def __init__(self, targets: Sequence[str], sources: Sequence[str], channels: int) -> None:
        super().__init__()
        self.messages = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {source: _GatedConv(channels) for source in sources if source != target}
                )
                for target in targets
            }
        )

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        """Refine the features of all targets.

        Args:
            features: {source: map (B, C, H, W)}.

        Returns:
            {target: refined map (B, C, H, W)}.
        """
        return {
            target: sum(
                (send(features[source]) for source, send in messages.items()), features[target]
            )
            for target, messages in self.messages.items()
            if isinstance(messages, nn.ModuleDict)
        }


class _GatedConv(nn.Module):
    """Convolution whose output is multiplied by a sigmoid gate computed from the same input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.content = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """Return the gated map (B, C, H, W) of a map of the same shape."""
        gated: Tensor = self.content(feature) * self.gate(feature).sigmoid()
        return gated

"""Multi-modal distillation: what PAD-Net, and MTI-Net at every scale, take from other tasks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class MultiModalDistillation(nn.Module):
    """F_t + sum over a != t of conv(F_a) * sigmoid(conv(F_a)), the convolutions 3x3 without bias.

    Xu et al., CVPR 2018, "PAD-Net", section 3.3, module C.

    Args:
        targets: tasks that are refined.
        sources: tasks that they learn from, the targets among them.
        channels: of every feature.
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
        """{source: BxCxHxW} -> {target: BxCxHxW}."""
        return {
            target: sum(
                (send(features[source]) for source, send in messages.items()), features[target]
            )
            for target, messages in self.messages.items()
            if isinstance(messages, nn.ModuleDict)
        }


class _GatedConv(nn.Module):
    """A feature, gated by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.content = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, feature: Tensor) -> Tensor:
        """BxCxHxW -> BxCxHxW."""
        gated: Tensor = self.content(feature) * self.gate(feature).sigmoid()
        return gated

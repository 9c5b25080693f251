"""Search for the context of a pair of tasks (ATRC)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.decoders.atrc_contexts import Context, ContextName, make_context

FREEZE_MARGIN = 0.3
"""Difference of the two largest probabilities from which on a context is chosen for good."""


class SearchedContext(nn.Module):
    """Mixture of all contexts of a pair, whose weights are learned with the network.

    During training, the weights of the contexts are a sample of the Gumbel-softmax distribution
    with learned logits, and the context "none" adds nothing. As soon as the probability of one
    context exceeds all others by 0.3, its weight is 1 for good. In evaluation, the weights are the
    probabilities without noise. Values are normalized without scale and offset, as published, so
    that these cannot replace the weights.

    Brueggemann et al., "Exploring Relational Context for Multi-Task Dense Prediction", ICCV 2021.

    Args:
        names: the contexts to choose from, without "none", which is always a choice.
        channels: number of channels C of the features of tasks.
        width: number of channels d of the output.
        temperature: temperature of the Gumbel-softmax distribution.

    Attributes:
        choices: "none" and the contexts, in the order of the probabilities.
    """

    chosen: Tensor

    def __init__(
        self, names: Sequence[ContextName], channels: int, width: int, temperature: float
    ) -> None:
        super().__init__()
        self.choices: tuple[ContextName, ...] = ("none", *names)
        self.width, self.temperature = width, temperature
        self.contexts = nn.ModuleDict(
            {f"{n}_context": make_context(n, channels, width) for n in names}
        )
        for context in self.contexts.values():
            assert isinstance(context, Context)
            norm = context.value[1]
            assert isinstance(norm, nn.BatchNorm2d)
            context.value[1] = nn.BatchNorm2d(norm.num_features, affine=False)
        self.logits = nn.Parameter(torch.zeros(len(self.choices)))
        self.register_buffer("chosen", torch.tensor(-1))

    def compute_probabilities(self) -> Tensor:
        """Return the probability of each choice, shape (choices,); 1 for a chosen one."""
        learned = self.logits.softmax(dim=0)
        fixed = F.one_hot(self.chosen.clamp(min=0), len(self.choices)).to(learned.dtype)
        return torch.where(self.chosen < 0, learned, fixed)

    def forward(
        self, target: Tensor, source: Tensor, labels: Mapping[ContextName, Tensor]
    ) -> Tensor:
        """Read the feature of the source.

        Args:
            target: feature of the target task (B, C, H, W).
            source: feature of the source task (B, C, H, W).
            labels: {label context: weights (B, K, H W) of the pixels in each region}.

        Returns:
            Map (B, d, H, W).
        """
        if self.training:
            self._freeze()
        weights = self.compute_probabilities()
        if self.training:
            noisy = F.gumbel_softmax(self.logits, self.temperature, dim=0)
            weights = torch.where(self.chosen < 0, noisy, weights)
        output = target.new_zeros(len(target), self.width, *target.shape[2:])
        for weight, name in zip(weights[1:], self.choices[1:], strict=True):
            context = self.contexts[f"{name}_context"]
            output = output + weight.to(output.dtype) * context(target, source, labels.get(name))
        return output

    @torch.no_grad()
    def _freeze(self) -> None:
        """Choose a context if its probability exceeds all others by the margin."""
        values, indices = self.logits.softmax(dim=0).topk(2)
        clear = (values[0] - values[1] >= FREEZE_MARGIN) & (self.chosen < 0)
        self.chosen.copy_(torch.where(clear, indices[0], self.chosen))


def list_choices(target: str, source: str, with_regions: Sequence[str]) -> list[ContextName]:
    """Return the contexts to choose from for a pair of tasks.

    Args:
        target: task that reads.
        source: task whose feature is read.
        with_regions: tasks with regions.

    Returns:
        Names of contexts, without "none" and "local", which no published result uses.
    """
    choices: list[ContextName] = ["global"]
    if target in with_regions:
        choices.append("target_label")
    if source in with_regions and source != target:
        choices.append("source_label")
    return choices

"""Selection of the ranks of adapters while they are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RankSelection(nn.Module):
    r"""Ranks of an adapter that are still used.

    FAAR (CVPR 2026). In training, each forward pass uses a random prefix of the kept ranks, so that
    the first ones learn what is most important (as in Valipour et al., "DyLoRA", EACL 2023). The
    importance of rank $i$ of $B A$ is a moving average of

    $$\frac{1}{2} (|\langle A_i, \nabla A_i \rangle| + |\langle B_i, \nabla B_i \rangle|)$$

    with the row $A_i$ and the column $B_i$. `shrink` keeps the fewest ranks that have a share
    `keep` of the importance. The parameters of the other ranks remain, but are not used anymore.

    Args:
        rank: number of ranks R.
        keep: share of the importance that `shrink` keeps.
        decay: decay of the moving average per optimizer step.

    Attributes:
        kept: whether each rank is used (R,).
        importance: importance of each rank (R,).

    Example:
        >>> ranks = RankSelection(4, keep=0.9, decay=0)
        >>> _ = ranks.importance.copy_(torch.tensor([6.0, 0.5, 3.0, 0.5]))
        >>> ranks.shrink()
        >>> ranks.kept
        tensor([ True, False,  True, False])
    """

    kept: Tensor
    importance: Tensor

    def __init__(self, rank: int, *, keep: float, decay: float) -> None:
        super().__init__()
        self.keep, self.decay = keep, decay
        self.register_buffer("kept", torch.ones(rank, dtype=torch.bool))
        self.register_buffer("importance", torch.zeros(rank))

    def forward(self) -> Tensor:
        """Select the ranks of a forward pass.

        Returns:
            Whether each rank is used (R,): a random prefix of at least one of the kept ranks in
            training, and all of them in evaluation mode.
        """
        if not self.training:
            return self.kept
        positions = self.kept.cumsum(0)
        # On the device, without waiting for it.
        length = torch.rand((), device=self.kept.device) * positions[-1]
        return self.kept & (positions <= length.floor() + 1)

    @torch.no_grad()
    def update(self, down: nn.Parameter, up: nn.Parameter) -> None:
        """Update the importance by the gradients of a step.

        Args:
            down: $A$, (R, ..).
            up: $B$, (C_out, R).
        """
        if down.grad is None or up.grad is None:
            return
        of_rows = (down * down.grad).flatten(1).sum(1).abs()
        of_columns = (up * up.grad).sum(0).abs()
        current = (of_rows + of_columns).to(self.importance.dtype) / 2
        updated = torch.lerp(current, self.importance, self.decay)
        # Gradients of a step that fp16 skips may be infinite.
        self.importance.copy_(torch.where(updated.isfinite().all(), updated, self.importance))

    @torch.no_grad()
    def shrink(self) -> None:
        """Keep the fewest ranks that have a share `keep` of the importance."""
        values = self.importance.double() * self.kept
        order = values.argsort(descending=True, stable=True)
        covered = values[order].cumsum(0)
        if not covered[-1] > 0:  # nothing was trained
            return
        count = int((covered < self.keep * covered[-1]).sum()) + 1
        chosen = torch.zeros_like(self.kept)
        chosen[order[:count]] = True
        self.kept &= chosen
        self.importance *= self.kept

"""A network of two shared maps, one made of the other, and a head a task; in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import sum_over_ranks
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.multi_task_loss import Losses
from densemtl.types import SHARED
from tests.helpers.balancing_driver import accumulate

NAMES = ("semseg", "depth", "normals")
OPTIONS = {"semseg": {"class_names": ["wall", "floor"]}, "depth": {}, "normals": {}}
FROM_TORCHJD = (
    *("upgrad", "mgda", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "fairgrad"),
    "dual_proj",
)
OURS = ("gradvac", "gradnorm", "db_mtl")
RULES = (*FROM_TORCHJD, *OURS)
"""Rules that find weights from a Gramian."""

Data = tuple[Tensor, Tensor]
"""Bx5 inputs, and BxT targets; NaN where a task has no label."""


def make(name: str, names: Sequence[str] = NAMES, **options: object) -> GradientBalancer:
    """A rule for the tasks named."""
    tasks = [registry.make("tasks", task, task, options=OPTIONS[task]) for task in names]
    return registry.make("balancing", name, tasks, options=options)


class SmallNetwork(nn.Module):
    """Heads read both maps, so that each map has a gradient of its own besides the other's."""

    def __init__(self, names: Sequence[str] = NAMES, width: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(5, width), nn.Linear(width, width)
        self.handover = SharedFeatures()
        self.heads = nn.ModuleDict({name: nn.Linear(2 * width, 1) for name in names})
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).double() / 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Bx5 -> {task: B}."""
        first = torch.tanh(self.first(inputs))
        maps = self.handover([first, torch.tanh(self.second(first))])
        joined = torch.cat(maps, dim=1)
        return {name: head(joined)[:, 0] for name, head in self.heads.items()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """As architectures name them."""
        own = {name: list(head.parameters()) for name, head in self.heads.items()}
        return {SHARED: [*self.first.parameters(), *self.second.parameters()], **own}

    def losses(self, data: Data) -> Losses:
        """Unlike in size; means over labels, of all ranks."""
        inputs, targets = data
        found = {}
        for index, (name, output) in enumerate(self(inputs).items()):
            target = targets[:, index]
            valid = ~target.isnan()
            error = (output - torch.where(valid, target, output.detach())) ** 2
            total, count = sum_over_ranks(error.sum(), valid.sum())
            found[name] = 3**index * total / count.clamp(min=1)
        return Losses(found)

    def gradients(self) -> list[Tensor]:
        """Of all parameters, after one another."""
        return [parameter.grad.clone() for parameter in self.parameters()]


def draw(images: int = 8, seed: int = 0, tasks: int = len(NAMES)) -> Data:
    """Random inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(images, 5, generator=generator).double()
    return inputs, torch.randn(images, tasks, generator=generator).double()


def step(rule: GradientBalancer, model: SmallNetwork, *batches: Data) -> BalancingOutput:
    """One step's gradients, the mean over batches."""
    model.zero_grad()
    return accumulate(rule, [partial(model.losses, batch) for batch in batches], model)

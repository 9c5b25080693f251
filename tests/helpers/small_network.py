"""A network of two shared maps, one made of the other, and a head a task; in double precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import all_reduce_sum
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.types import SHARED, Losses
from tests.helpers.balancing_driver import accumulate

TASK_NAMES = ("semseg", "depth", "normals")
TASK_OPTIONS = {"semseg": {"class_names": ["wall", "floor"]}, "depth": {}, "normals": {}}
TORCHJD_METHODS = (
    *("upgrad", "mgda", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "fairgrad"),
    "dual_proj",
)
NATIVE_METHODS = ("gradvac", "gradnorm", "db_mtl")
GRAMIAN_METHODS = (*TORCHJD_METHODS, *NATIVE_METHODS)
"""Rules that find weights from a Gramian."""

Data = tuple[Tensor, Tensor]
"""Bx5 inputs, and BxT targets; NaN where a task has no label."""


def make_balancer(
    name: str, task_names: Sequence[str] = TASK_NAMES, **options: object
) -> GradientBalancer:
    """A rule for the tasks named."""
    tasks = [
        registry.create("tasks", task, task, options=TASK_OPTIONS[task]) for task in task_names
    ]
    return registry.create("balancing", name, tasks, options=options)


class SmallNetwork(nn.Module):
    """Heads read both maps, so that each map has a gradient of its own besides the other's."""

    def __init__(self, task_names: Sequence[str] = TASK_NAMES, width: int = 6) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first, self.second = nn.Linear(5, width), nn.Linear(width, width)
        self.shared_features = SharedFeatures()
        self.heads = nn.ModuleDict({name: nn.Linear(2 * width, 1) for name in task_names})
        self.double()
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator).double() / 2)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        """Bx5 -> {task: B}."""
        first = torch.tanh(self.first(inputs))
        maps = self.shared_features([first, torch.tanh(self.second(first))])
        joined = torch.cat(maps, dim=1)
        return {name: head(joined)[:, 0] for name, head in self.heads.items()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """As architectures name them."""
        own = {name: list(head.parameters()) for name, head in self.heads.items()}
        return {SHARED: [*self.first.parameters(), *self.second.parameters()], **own}

    def compute_losses(self, data: Data) -> Losses:
        """Unlike in size; means over labels, of all ranks."""
        inputs, targets = data
        found = {}
        for index, (name, output) in enumerate(self(inputs).items()):
            target = targets[:, index]
            valid = ~target.isnan()
            error = (output - torch.where(valid, target, output.detach())) ** 2
            total, count = all_reduce_sum(error.sum(), valid.sum())
            found[name] = 3**index * total / count.clamp(min=1)
        return Losses(found)

    def clone_gradients(self) -> list[Tensor]:
        """Of all parameters, after one another."""
        return [parameter.grad.clone() for parameter in self.parameters()]


def make_random_data(batch_size: int = 8, seed: int = 0, num_tasks: int = len(TASK_NAMES)) -> Data:
    """Random inputs and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch_size, 5, generator=generator).double()
    return inputs, torch.randn(batch_size, num_tasks, generator=generator).double()


def run_step(balancer: GradientBalancer, model: SmallNetwork, *batches: Data) -> BalancingOutput:
    """One step's gradients, the mean over batches."""
    model.zero_grad()
    return accumulate(balancer, [partial(model.compute_losses, batch) for batch in batches], model)

"""Small float64 network with two shared feature maps and one head per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.backward_passes import BalancingOutput
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.distributed.collectives import all_reduce_sum
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.types import SHARED, Losses
from tests.helpers.balancing_driver import accumulate

TASK_NAMES = ("semseg", "depth", "normals")
TASK_OPTIONS = {"semseg": {"class_names": ["wall", "floor"]}, "depth": {}, "normals": {}}
TORCHJD_METHODS = (
    *("upgrad", "pcgrad", "cagrad", "imtl_g", "nash_mtl", "aligned_mtl", "fairgrad"),
    "dual_proj",
)
NATIVE_METHODS = ("mgda", "gradvac", "gradnorm", "db_mtl")
GRAMIAN_METHODS = (*TORCHJD_METHODS, *NATIVE_METHODS)
"""Gradient methods whose weights depend on the Gramian of the gradients."""

Data = tuple[Tensor, Tensor]
"""Inputs (B, 5) and targets (B, T); NaN where a task has no label."""


def make_balancer(
    name: str, task_names: Sequence[str] = TASK_NAMES, **options: object
) -> GradientBalancer:
    """Return a gradient method for the given tasks."""
    tasks = [
        registry.create("tasks", task, task, options=TASK_OPTIONS[task]) for task in task_names
    ]
    return registry.create("balancing", name, tasks, options=options)


class SmallNetwork(nn.Module):
    """Network whose second shared feature map is computed from the first one.

    The heads read both maps, so that the gradient of each map is not determined by the other one.
    """

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
        """Compute {task: predictions (B,)} of inputs (B, 5)."""
        first = torch.tanh(self.first(inputs))
        maps = self.shared_features([first, torch.tanh(self.second(first))])
        concatenated = torch.cat(maps, dim=1)
        return {name: head(concatenated)[:, 0] for name, head in self.heads.items()}

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return the parameter groups as decoders do."""
        task_parameters = {name: list(head.parameters()) for name, head in self.heads.items()}
        return {SHARED: [*self.first.parameters(), *self.second.parameters()], **task_parameters}

    def compute_losses(self, data: Data) -> Losses:
        """Return losses of different magnitudes, means over the labels of all ranks."""
        inputs, targets = data
        losses = {}
        for index, (name, output) in enumerate(self(inputs).items()):
            target = targets[:, index]
            valid = ~target.isnan()
            error = (output - torch.where(valid, target, output.detach())) ** 2
            total, count = all_reduce_sum(error.sum(), valid.sum())
            losses[name] = 3**index * total / count.clamp(min=1)
        return Losses(losses)

    def clone_gradients(self) -> list[Tensor]:
        """Return copies of the gradients of all parameters."""
        return [parameter.grad.clone() for parameter in self.parameters()]


def make_random_data(batch_size: int = 8, seed: int = 0, num_tasks: int = len(TASK_NAMES)) -> Data:
    """Return random inputs and targets."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(batch_size, 5, generator=generator).double()
    return inputs, torch.randn(batch_size, num_tasks, generator=generator).double()


def run_step(balancer: GradientBalancer, model: SmallNetwork, *batches: Data) -> BalancingOutput:
    """Compute the gradients of one step, which are means over the batches."""
    model.zero_grad()
    return accumulate(balancer, [partial(model.compute_losses, batch) for batch in batches], model)

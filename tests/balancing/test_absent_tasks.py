"""Tasks without any label in a step, as with several datasets, are absent in all methods."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.backward_passes import BalancingOutput
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.types import Losses
from tests.helpers.balancing_driver import accumulate
from tests.helpers.small_network import TASK_OPTIONS, TORCHJD_METHODS

NAMES = ("semseg", "depth", "normals")
METHODS = registry.list_names("balancing")
FIRST_TWO = NAMES[:2]
RANDOM = ("rlw",)
"""Methods whose weights depend on the number of tasks by chance."""


def make(name: str, names: Sequence[str] = NAMES) -> Balancer:
    if name in TORCHJD_METHODS:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')
    torch.manual_seed(5)
    tasks = [registry.create("tasks", task, task, options=TASK_OPTIONS[task]) for task in names]
    return registry.create("balancing", name, tasks, options={})


def take_step(method: Balancer, step: int, present: Sequence[str] = NAMES) -> Tensor:
    """Run a step with labels of some tasks only; return all weights."""
    generator = torch.Generator().manual_seed(step)
    scale = torch.rand(len(NAMES), generator=generator) + 0.5
    values = {
        task: float(scale[NAMES.index(task)]) * (task in present) for task in method.task_names
    }
    if isinstance(method, GradientBalancer):
        return take_gradient_step(method, values, generator)
    assert isinstance(method, LossWeighting)
    losses = {task: torch.tensor(value, requires_grad=True) for task, value in values.items()}
    method.zero_grad()
    output: BalancingOutput = accumulate(method, [lambda: Losses(losses)], nn.Identity())
    before = method.stack_losses(losses).detach()
    method.after_step(before, before * torch.linspace(0.7, 0.9, len(before)))
    assert output.total.isfinite()
    return torch.stack(list(output.weights.values()))


def take_gradient_step(
    method: GradientBalancer, losses: dict[str, float], generator: torch.Generator
) -> Tensor:
    rows = torch.randn(len(NAMES), 4, generator=generator).double()[: len(losses)]
    values = torch.tensor(list(losses.values())).double()
    gradients = rows * (values > 0)[:, None]
    tasks = tuple(range(len(values)))
    method.steps += 1
    summary = GradientSummary(gradients @ gradients.T, values, tasks, method.steps)
    return method.compute_weights(summary, 1.0)


def list_states(method: Balancer, index: int) -> dict[str, list[float]]:
    """Return everything that a method keeps for one task: the entry of each vector."""
    tensors = {**dict(method.named_buffers()), **dict(method.named_parameters())}
    tensors |= method.state if isinstance(method, GradientBalancer) else {}
    count = len(method.task_names)
    return {
        name: tensor.detach()[..., index].flatten().tolist()
        for name, tensor in tensors.items()
        if tensor.ndim and tensor.shape[-1] == count
    }


@pytest.mark.parametrize("name", METHODS)
def test_state_of_an_absent_task_stays_the_same(name: str) -> None:
    method = make(name)
    for step in range(4):
        take_step(method, step)
    before = list_states(method, 2)
    for step in range(4, 8):
        take_step(method, step, FIRST_TWO)
    assert str(list_states(method, 2)) == str(before)  # strings, since NaN equals NaN
    for parameter in method.parameters():
        assert parameter.grad[2] == 0


@pytest.mark.parametrize("name", [method for method in METHODS if method not in RANDOM])
def test_weights_of_the_others_are_those_of_a_run_without_the_task(name: str) -> None:
    """Up to a common factor: the weights of some methods sum to the number of tasks."""
    three, two = make(name), make(name, FIRST_TWO)
    for step in range(6):
        first, second = take_step(three, step, FIRST_TWO), take_step(two, step)
        assert first[0] / first[1] == pytest.approx(float(second[0] / second[1]), rel=1e-4)
        if step % 3 == 2:
            three.end_epoch()
            two.end_epoch()


@pytest.mark.parametrize("name", METHODS)
def test_one_task_at_a_time_and_none(name: str) -> None:
    """With one set per batch, a step may have labels of a single task, or of none."""
    method = make(name)
    for step in range(9):
        present = [NAMES[step % 3]] if step % 4 else []
        weights = take_step(method, step, present)
        assert weights.isfinite().all()
        assert all(weights[NAMES.index(task)] > 0 for task in present) or name == "dtp"
    method.end_epoch()
    assert take_step(method, 9).isfinite().all()

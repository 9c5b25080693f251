"""Figures and costs of balancing methods; the figures run them on given losses and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import svg
import torch
from torch import Tensor

from densemtl import registry
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.create import create_tasks
from densemtl.tasks.base import Task

NUM_EPOCHS, STEPS_PER_EPOCH = 10, 12
LOSS_CURVES = {"semseg": (3.0, 0.8, 40.0), "depth": (1.2, 0.3, 12.0), "normals": (0.5, 0.1, 90.0)}
"""{task: (first loss, last loss, time constant in steps)}, with different scales and speeds."""

GRADIENTS = torch.tensor([[1.25, 0.15], [-0.45, 0.8]], dtype=torch.float64)
"""Conflicting gradients of two tasks; their cosine is -0.4."""


def _create_balancer(name: str, tasks: Sequence[Task]) -> Any:
    return registry.create("balancing", name, tasks, options={})


def render_weight_curves(name: str) -> str:
    """Render the loss weights that a method assigns to decreasing losses, as Markdown with SVG."""
    shares = _compute_weight_shares(
        _create_balancer(name, create_tasks(list(LOSS_CURVES), "synthetic"))
    )
    max_share = math.ceil(10 * max(max(values) for values in shares.values())) / 10
    speeds = "; ".join(
        f"{task} from {first:g} to {last:g} with a time constant of {time_constant:g} steps"
        for task, (first, last, time_constant) in LOSS_CURVES.items()
    )
    return (
        f"{svg.draw_curves(shares, max_share, f'Relative loss weights of {name}')}\n\n*Loss "
        f"weights, divided by their sum, over {NUM_EPOCHS} epochs of {STEPS_PER_EPOCH} steps. They "
        f"are computed by this method for losses that decrease exponentially: {speeds}.*"
    )


def _compute_weight_shares(method: LossWeighting) -> dict[str, list[float]]:
    torch.manual_seed(0)
    parameters = list(method.parameters())
    optimizer = torch.optim.Adam(parameters, lr=0.02) if parameters else None
    shares: dict[str, list[float]] = {task: [] for task in LOSS_CURVES}
    for step in range(NUM_EPOCHS * STEPS_PER_EPOCH):
        losses = method.stack_losses(_compute_losses(step))
        weights = method.weights(losses)
        if optimizer is not None:
            optimizer.zero_grad()
            torch.autograd.backward(method.total(weights, losses))
            optimizer.step()
        method.update_state(losses)
        if method.needs_post_step_losses:
            method.after_step(losses, method.stack_losses(_compute_losses(step + 1)))
        if (step + 1) % STEPS_PER_EPOCH == 0:
            method.end_epoch()
        for task, share in zip(LOSS_CURVES, (weights / weights.sum()).tolist(), strict=True):
            shares[task].append(share)
    return shares


def _compute_losses(step: int) -> dict[str, Tensor]:
    return {
        task: torch.tensor(last + (first - last) * math.exp(-step / time_constant))
        for task, (first, last, time_constant) in LOSS_CURVES.items()
    }


def render_direction(name: str) -> str:
    """Render the direction of a gradient method for two conflicting gradients."""
    if name == "graddrop":
        return ""  # it treats the elements of feature gradients separately
    method = _create_balancer(name, create_tasks(["semseg", "depth"], "synthetic"))
    weights = _compute_weights(method)
    direction = weights @ GRADIENTS
    scale = float(GRADIENTS.norm(dim=1).mean() / direction.norm())
    mean = GRADIENTS.mean(dim=0)
    vectors = [
        ("gradient 1", "task0", _to_point(GRADIENTS[0])),
        ("gradient 2", "task1", _to_point(GRADIENTS[1])),
        ("mean", "plain", _to_point(mean)),
        (name, "goal", _to_point(direction * scale)),
    ]
    products = GRADIENTS @ direction
    harmed = [f"task {i}" for i, product in enumerate(products.tolist(), 1) if product < -1e-6]
    effect = f"increases the loss of {' and '.join(harmed)}" if harmed else "increases no loss"
    values = ", ".join(f"{weight:.2f}" for weight in weights.tolist())
    return (
        f"{svg.draw_arrows(vectors, f'Gradients and the direction of {name}')}\n\n*Two conflicting "
        "gradients, and the direction that this method computes from them, drawn with the mean "
        f"norm of the gradients. The weights are {values}. To first order, a step in the opposite "
        f"direction {effect}.*"
    )


def _to_point(vector: Tensor) -> svg.Point:
    x, y = vector.tolist()
    return x, y


def _compute_weights(method: GradientBalancer) -> Tensor:
    gramian = GRADIENTS @ GRADIENTS.T
    for step in range(1, 41):
        losses = torch.tensor([1.0, 0.98**step], dtype=torch.float64)
        weights = method.weights(GradientSummary(gramian, losses, (0, 1), step))
    return weights.double()


def describe_cost(cls: type[Balancer]) -> str:
    """Describe the cost of a balancing method in forward and backward passes."""
    guide = "Measured times and memory: [balancing](../../concepts/balancing.md#cost)."
    if not issubclass(cls, GradientBalancer):
        more = ", and another forward pass after the update" if cls.needs_post_step_losses else ""
        return (
            f"One forward and one backward pass per step, as the plain sum of losses{more}. {guide}"
        )
    if registry.has_option(cls, "scope"):
        return (
            "With `scope: features`, each step has one backward pass of the shared backbone, and "
            "one of the heads per task. With `scope: parameters`, each step has one complete "
            f"backward pass per task. {guide}"
        )
    return (
        "Each step has one backward pass of the shared backbone, and one of the heads per task. "
        f"{guide}"
    )

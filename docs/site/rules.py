"""Figures of balancing rules: the rules themselves, run on made-up losses and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import svg
import torch
from torch import Tensor

from densemtl import create_tasks, registry
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.tasks.base import Task

NUM_EPOCHS, STEPS_PER_EPOCH = 10, 12
LOSS_CURVES = {"semseg": (3.0, 0.8, 40.0), "depth": (1.2, 0.3, 12.0), "normals": (0.5, 0.1, 90.0)}
"""{task: (first loss, last loss, steps in which it falls)}: unlike scales, unlike speeds."""

GRADIENTS = torch.tensor([[1.25, 0.15], [-0.45, 0.8]], dtype=torch.float64)
"""Of two tasks, in conflict: their cosine is -.4."""


def _create_balancer(name: str, tasks: Sequence[Task]) -> Any:
    return registry.create("balancing", name, tasks, options={})


def render_weight_curves(name: str) -> str:
    """The shares of the weights that a rule gives falling losses."""
    shares = _compute_weight_shares(
        _create_balancer(name, create_tasks(list(LOSS_CURVES), "synthetic"))
    )
    highest = math.ceil(10 * max(max(each) for each in shares.values())) / 10
    speeds = "; ".join(
        f"{task} {first:g} to {last:g} in {speed:g} steps"
        for task, (first, last, speed) in LOSS_CURVES.items()
    )
    return (
        f"{svg.draw_curves(shares, highest, f'Shares of weights under {name}')}\n\n*Each task's "
        f"share of the weights over {NUM_EPOCHS} epochs of {STEPS_PER_EPOCH} steps, computed by "
        f"this method itself, on losses that fall exponentially: {speeds}.*"
    )


def _compute_weight_shares(method: LossWeighting) -> dict[str, list[float]]:
    torch.manual_seed(0)
    learnt = list(method.parameters())
    optimizer = torch.optim.Adam(learnt, lr=0.02) if learnt else None
    shares: dict[str, list[float]] = {task: [] for task in LOSS_CURVES}
    for step in range(NUM_EPOCHS * STEPS_PER_EPOCH):
        losses = method.stack_losses(_compute_losses(step))
        weights = method.weights(losses)
        if optimizer is not None:
            optimizer.zero_grad()
            method.total(weights, losses).backward()
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
        task: torch.tensor(last + (first - last) * math.exp(-step / speed))
        for task, (first, last, speed) in LOSS_CURVES.items()
    }


def render_direction(name: str) -> str:
    """Where a rule goes between two gradients in conflict."""
    if name == "graddrop":
        return ""  # which weighs features one by one: no two vectors show it
    rule = _create_balancer(name, create_tasks(["semseg", "depth"], "synthetic"))
    weights = _compute_weights(rule)
    goal = weights @ GRADIENTS
    length = float(GRADIENTS.norm(dim=1).mean() / goal.norm())
    plain = GRADIENTS.mean(dim=0)
    vectors = [
        ("gradient 1", "task0", tuple(GRADIENTS[0].tolist())),
        ("gradient 2", "task1", tuple(GRADIENTS[1].tolist())),
        ("mean", "plain", tuple(plain.tolist())),
        (name, "goal", tuple((goal * length).tolist())),
    ]
    products = GRADIENTS @ goal
    harms = [f"task {i}" for i, product in enumerate(products.tolist(), 1) if product < -1e-6]
    effect = f"raises the loss of {' and '.join(harms)}" if harms else "raises no loss"
    found = ", ".join(f"{each:.2f}" for each in weights.tolist())
    return (
        f"{svg.draw_arrows(vectors, f'Gradients and the direction of {name}')}\n\n*Two gradients "
        "in conflict, and the direction that this method itself makes of them, drawn at their mean "
        f"length. Its weights are {found}; to first order a step against it {effect}.*"
    )


def _compute_weights(method: GradientBalancer) -> Tensor:
    gramian = GRADIENTS @ GRADIENTS.T
    for step in range(1, 41):
        losses = torch.tensor([1.0, 0.98**step], dtype=torch.float64)
        weights = method.weights(GradientSummary(gramian, losses, (0, 1), step))
    return weights.double()


def describe_cost(cls: type[Balancer]) -> str:
    """In passes through the network; what was measured is told by the guide."""
    guide = "Measured times and memory: [balancing](../../concepts/balancing.md#cost)."
    if not issubclass(cls, GradientBalancer):
        more = ", and one more pass forward after the update" if cls.needs_post_step_losses else ""
        return f"One pass forward and one backward a step, as a plain sum of losses{more}. {guide}"
    if registry.has_option(cls, "scope"):
        return (
            "With `scope: features` the shared backbone is run backward once, the heads once a "
            f"task; with `scope: parameters` everything is run backward once a task. {guide}"
        )
    return f"The shared backbone is run backward once, the heads once a task. {guide}"

"""Figures of balancing rules: the rules themselves, run on made-up losses and gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import svg
import torch
from torch import Tensor

from densemtl import create_tasks
from densemtl import registry
from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import Balancer, LossWeighting
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.tasks.base import Task

EPOCHS, EPOCH = 10, 12
COURSES = {"semseg": (3.0, 0.8, 40.0), "depth": (1.2, 0.3, 12.0), "normals": (0.5, 0.1, 90.0)}
"""{task: (first loss, last loss, steps in which it falls)}: unlike scales, unlike speeds."""

GRADIENTS = torch.tensor([[1.25, 0.15], [-0.45, 0.8]], dtype=torch.float64)
"""Of two tasks, in conflict: their cosine is -.4."""


def _make(name: str, tasks: Sequence[Task]) -> Any:
    return registry.make("balancing", name, tasks, options={})


def course(name: str) -> str:
    """The shares of the weights that a rule gives falling losses."""
    shares = _shares(_make(name, create_tasks(list(COURSES), "synthetic")))
    highest = math.ceil(10 * max(max(each) for each in shares.values())) / 10
    told = "; ".join(
        f"{task} {first:g} to {last:g} in {speed:g} steps"
        for task, (first, last, speed) in COURSES.items()
    )
    return (
        f"{svg.curves(shares, highest, f'Shares of weights under {name}')}\n\n*Each task's share "
        f"of the weights over {EPOCHS} epochs of {EPOCH} steps, by this rule itself, on losses "
        f"that fall exponentially: {told}.*"
    )


def _shares(rule: LossWeighting) -> dict[str, list[float]]:
    torch.manual_seed(0)
    learnt = list(rule.parameters())
    optimizer = torch.optim.Adam(learnt, lr=0.02) if learnt else None
    shares: dict[str, list[float]] = {task: [] for task in COURSES}
    for step in range(EPOCHS * EPOCH):
        losses = rule.stack_losses(_losses(step))
        weights = rule.weights(losses)
        if optimizer is not None:
            optimizer.zero_grad()
            rule.total(weights, losses).backward()
            optimizer.step()
        rule.update_state(losses)
        if rule.needs_post_step_losses:
            rule.after_step(losses, rule.stack_losses(_losses(step + 1)))
        if (step + 1) % EPOCH == 0:
            rule.end_epoch()
        for task, share in zip(COURSES, (weights / weights.sum()).tolist(), strict=True):
            shares[task].append(share)
    return shares


def _losses(step: int) -> dict[str, Tensor]:
    return {
        task: torch.tensor(last + (first - last) * math.exp(-step / speed))
        for task, (first, last, speed) in COURSES.items()
    }


def direction(name: str) -> str:
    """Where a rule goes between two gradients in conflict."""
    if name == "graddrop":
        return ""  # which weighs features one by one: no two vectors show it
    rule = _make(name, create_tasks(["semseg", "depth"], "synthetic"))
    weights = _weights(rule)
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
    told = f"raises the loss of {' and '.join(harms)}" if harms else "raises no loss"
    found = ", ".join(f"{each:.2f}" for each in weights.tolist())
    return (
        f"{svg.arrows(vectors, f'Gradients and the direction of {name}')}\n\n*Two gradients in "
        "conflict, and the direction that this rule itself makes of them, drawn at their mean "
        f"length. Its weights are {found}; to first order a step against it {told}.*"
    )


def _weights(rule: GradientBalancer) -> Tensor:
    gramian = GRADIENTS @ GRADIENTS.T
    for step in range(1, 41):
        losses = torch.tensor([1.0, 0.98**step], dtype=torch.float64)
        weights = rule.weights(GradientSummary(gramian, losses, (0, 1), step))
    return weights.double()


def cost(cls: type[Balancer]) -> str:
    """In passes through the network; what was measured is told by the guide."""
    guide = "Measured times and memory: [the guide](../../balancing.md#what-it-costs)."
    if not issubclass(cls, GradientBalancer):
        more = ", and one more pass forward after the update" if cls.needs_post_step_losses else ""
        return f"One pass forward and one backward a step, as a plain sum of losses{more}. {guide}"
    if registry.takes(cls, "scope"):
        return (
            "With `scope: features` the shared backbone is run backward once, the heads once a "
            f"task; with `scope: parameters` everything is run backward once a task. {guide}"
        )
    return f"The shared backbone is run backward once, the heads once a task. {guide}"

"""Parameter groups and schedules: a group's factor holds for good."""

from __future__ import annotations

import math

import pytest
import timm.optim
import torch
from torch import nn

from densemtl.config.sections import OptimConfig, ScheduleConfig
from densemtl.engine.optimizer import BALANCING_GROUP, LRSchedule, make_optimizer
from densemtl.errors import ConfigError

EPOCHS, STEPS = 4, 5
SCALES = {"fusion": 100.0, "depth": 0.1}


class Learned(nn.Module):
    """A balancer that learns one number."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))


def groups() -> dict[str, list[nn.Parameter]]:
    return {name: [nn.Parameter(torch.ones(2))] for name in ("shared", "fusion", "depth")}


def optimizer(settings: OptimConfig | None = None, balancer: nn.Module | None = None):
    settings = settings or OptimConfig(lr=0.01, lr_scale=SCALES)
    return make_optimizer(settings, groups(), balancer or Learned())


def rates(schedule: ScheduleConfig) -> dict[str, list[float]]:
    """{group: rate of each step of the run}."""
    made = optimizer()
    plan = LRSchedule(schedule, made, EPOCHS, STEPS)
    found: dict[str, list[float]] = {group["name"]: [] for group in made.param_groups}
    for step in range(EPOCHS * STEPS):
        plan.set_lr(step)
        for group in made.param_groups:
            found[group["name"]].append(group["lr"])
    return found


def poly(done: float, total: int) -> float:
    return (1 - done / total) ** 0.9


TOTAL = EPOCHS * STEPS
EXPECTED = {
    "poly by step": (
        ScheduleConfig(interval="step"),
        [poly(step, TOTAL) for step in range(TOTAL)],
    ),
    "poly by epoch": (
        ScheduleConfig(interval="epoch"),
        [poly(step // STEPS, EPOCHS) for step in range(TOTAL)],
    ),
    "cosine": (
        ScheduleConfig(name="cosine"),
        [(1 + math.cos(math.pi * step / TOTAL)) / 2 for step in range(TOTAL)],
    ),
    "constant": (ScheduleConfig(name="constant"), [1.0] * TOTAL),
    "constant by epoch": (ScheduleConfig(name="constant", interval="epoch"), [1.0] * TOTAL),
    "warm-up by iteration": (
        ScheduleConfig(warmup_epochs=1.5),
        [step / 7.5 if step < 7.5 else poly(step, TOTAL) for step in range(TOTAL)],
    ),
    "warm-up of one epoch by epoch": (
        ScheduleConfig(warmup_epochs=1, interval="epoch"),
        [step / 5 if step < 5 else poly(step // STEPS, EPOCHS) for step in range(TOTAL)],
    ),
    "warm-up of half an epoch by epoch": (
        ScheduleConfig(warmup_epochs=0.5, interval="epoch"),
        [
            step / 2.5 if step < 2.5 else poly(max(step // STEPS, 0.5), EPOCHS)
            for step in range(TOTAL)
        ],
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_rates_follow_the_formula_in_every_group(name):
    settings, shape = EXPECTED[name]
    found = rates(settings)
    for group, factor in (("shared", 1), ("fusion", 100), ("depth", 0.1), (BALANCING_GROUP, 1)):
        assert found[group] == pytest.approx([0.01 * factor * share for share in shape])


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_the_rate_ends_near_the_final_one(name):
    found = rates(ScheduleConfig(name=name, min_lr=0.005))["shared"]
    assert found == sorted(found, reverse=True)
    assert 0.005 < found[-1] < 0.0056


@pytest.mark.parametrize("name", EXPECTED)
def test_a_schedule_remembers_nothing(name):
    """A resumed run asks for a late step first and must get the same rate."""
    settings, _ = EXPECTED[name]
    made = optimizer()
    LRSchedule(settings, made, EPOCHS, STEPS).set_lr(13)
    assert made.param_groups[0]["lr"] == rates(settings)["shared"][13]


def test_a_resumed_optimiser_goes_on_at_the_same_rates():
    made = optimizer()
    plan = LRSchedule(ScheduleConfig(), made, EPOCHS, STEPS)
    plan.set_lr(9)
    saved, later = made.state_dict(), optimizer()
    plan = LRSchedule(ScheduleConfig(), later, EPOCHS, STEPS)
    later.load_state_dict(saved)
    plan.set_lr(10)
    expected = rates(ScheduleConfig())
    for group in later.param_groups:
        assert group["lr"] == expected[group["name"]][10]


def test_groups_are_named_and_what_a_balancer_learns_does_not_decay():
    made = optimizer(OptimConfig(weight_decay=0.3))
    decays = {group["name"]: group["weight_decay"] for group in made.param_groups}
    assert decays == {"shared": 0.3, "fusion": 0.3, "depth": 0.3, BALANCING_GROUP: 0}
    names = [group["name"] for group in optimizer(balancer=nn.Identity()).param_groups]
    assert BALANCING_GROUP not in names


def test_frozen_parameters_are_left_out():
    parts = groups()
    parts["shared"][0].requires_grad_(False)
    made = make_optimizer(OptimConfig(), parts, nn.Identity())
    trained = {id(p) for group in made.param_groups for p in group["params"]}
    assert trained == {id(parts["fusion"][0]), id(parts["depth"][0])}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadamw", "lamb"])
def test_optimisers_by_name_take_a_step_downhill(name):
    parts = groups()
    made = make_optimizer(OptimConfig(name=name, lr=0.01), parts, nn.Identity())
    sum(p.square().sum() for params in parts.values() for p in params).backward()
    made.step()
    assert all((p < 1).all() for params in parts.values() for p in params)


def test_momentum_and_rate_reach_the_optimiser():
    made = optimizer(OptimConfig(name="sgd", lr=0.2, momentum=0.7))
    assert {(group["momentum"], group["lr"]) for group in made.param_groups} == {(0.7, 0.2)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adamq"}, r"optim.name: no optimiser 'adamq', did you mean 'adam"),
        ({"name": "adahessian"}, r"optim.name: no optimiser 'adahessian'"),
        (
            {"name": "sgd", "momentum": 0},
            r"optim: sgd cannot be had so: Nesterov momentum",
        ),
        ({"lr_scale": {"fuson": 2}}, r"optim.lr_scale.fuson: no such group, did you mean 'fusion'"),
        ({"lr_scale": {"edge": 2}}, r"optim.lr_scale.edge: no such group, choose from balancing"),
    ],
)
def test_unknown_names_are_told(settings, message):
    with pytest.raises(ConfigError, match=message):
        optimizer(OptimConfig(**settings))


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum", "lamb"])
def test_fused_steps_are_the_plain_ones(name):
    """Where torch has a fused kernel it is used, and changes no step by more than rounding."""
    made = optimizer(OptimConfig(name=name, lr=0.01))
    assert made.defaults.get("fused", False) == (name != "lamb")
    params = [param for group in made.param_groups for param in group["params"]]
    plain = timm.optim.create_optimizer_v2(
        [
            {"params": [p.detach().clone() for p in group["params"]], "weight_decay": decay}
            for group in made.param_groups
            for decay in [group["weight_decay"]]
        ],
        opt=name,
        lr=0.01,
    )
    others = [param for group in plain.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for one, other in zip(params, others, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        made.step()
        plain.step()
    for one, other in zip(params, others, strict=True):
        torch.testing.assert_close(one.detach(), other, rtol=1e-6, atol=1e-6)

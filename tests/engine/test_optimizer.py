"""Tests of optimizers, parameter groups and learning-rate schedules."""

from __future__ import annotations

import math

import pytest
import timm.optim
import timm.scheduler
import torch
from torch import nn

from densemtl.config.sections import OptimConfig, ScheduleConfig
from densemtl.engine.optimizer import LRSchedule, make_optimizer
from densemtl.engine.parameter_groups import BALANCING_GROUP
from densemtl.errors import ConfigError

EPOCHS, STEPS = 4, 5
OPTIMIZERS = [str(name) for name in timm.optim.list_optimizers()]
SCALES = {"fusion": 100.0, "depth": 0.1}


class Learned(nn.Module):
    """Balancing method with one learned parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.number = nn.Parameter(torch.zeros(()))


def make_groups() -> dict[str, list[nn.Parameter]]:
    return {name: [nn.Parameter(torch.ones(2))] for name in ("shared", "fusion", "depth")}


def make_test_optimizer(config: OptimConfig | None = None, balancer: nn.Module | None = None):
    config = config or OptimConfig(lr=0.01, lr_scale=SCALES)
    return make_optimizer(config, make_groups(), balancer or Learned())


def compute_lrs(config: ScheduleConfig) -> dict[str, list[float]]:
    """Return {group: learning rate at each step of the run}."""
    optimizer = make_test_optimizer()
    schedule = LRSchedule(config, optimizer, EPOCHS, STEPS)
    lrs: dict[str, list[float]] = {group["name"]: [] for group in optimizer.param_groups}
    for step in range(EPOCHS * STEPS):
        schedule.set_lr(step)
        for group in optimizer.param_groups:
            lrs[group["name"]].append(group["lr"])
    return lrs


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
    "warm-up by step": (
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
def test_learning_rates_follow_the_formula_in_all_groups(name):
    config, factors = EXPECTED[name]
    lrs = compute_lrs(config)
    for group, scale in (("shared", 1), ("fusion", 100), ("depth", 0.1), (BALANCING_GROUP, 1)):
        assert lrs[group] == pytest.approx([0.01 * scale * factor for factor in factors])


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ("step", [poly(step, 13) for step in range(13)]),
        ("epoch", [poly(s // 5, 3) for s in range(13)]),
    ],
)
def test_schedule_of_a_run_that_ends_inside_an_epoch(interval, expected):
    optimizer = make_test_optimizer()
    schedule = LRSchedule(ScheduleConfig(interval=interval), optimizer, 13 / STEPS, STEPS)
    for step, factor in enumerate(expected):
        schedule.set_lr(step)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * factor)


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_learning_rate_decreases_to_min_lr(name):
    lrs = compute_lrs(ScheduleConfig(name=name, min_lr=0.005))["shared"]
    assert lrs == sorted(lrs, reverse=True)
    assert 0.005 < lrs[-1] < 0.0056


@pytest.mark.parametrize("name", EXPECTED)
def test_schedule_has_no_state(name):
    """A resumed run starts with a later step and must get the same learning rate."""
    config, _ = EXPECTED[name]
    optimizer = make_test_optimizer()
    LRSchedule(config, optimizer, EPOCHS, STEPS).set_lr(13)
    assert optimizer.param_groups[0]["lr"] == compute_lrs(config)["shared"][13]


def test_resumed_optimizer_continues_with_the_same_learning_rates():
    optimizer = make_test_optimizer()
    schedule = LRSchedule(ScheduleConfig(), optimizer, EPOCHS, STEPS)
    schedule.set_lr(9)
    saved, resumed = optimizer.state_dict(), make_test_optimizer()
    schedule = LRSchedule(ScheduleConfig(), resumed, EPOCHS, STEPS)
    resumed.load_state_dict(saved)
    schedule.set_lr(10)
    expected = compute_lrs(ScheduleConfig())
    for group in resumed.param_groups:
        assert group["lr"] == expected[group["name"]][10]


def test_groups_are_named_and_the_balancing_group_has_no_weight_decay():
    optimizer = make_test_optimizer(OptimConfig(weight_decay=0.3))
    decays = {group["name"]: group["weight_decay"] for group in optimizer.param_groups}
    assert decays == {"shared": 0.3, "fusion": 0.3, "depth": 0.3, BALANCING_GROUP: 0}
    optimizer = make_test_optimizer(balancer=nn.Identity())
    assert BALANCING_GROUP not in [group["name"] for group in optimizer.param_groups]


def test_frozen_parameters_are_left_out():
    groups = make_groups()
    groups["shared"][0].requires_grad_(False)
    optimizer = make_optimizer(OptimConfig(), groups, nn.Identity())
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert trained == {id(groups["fusion"][0]), id(groups["depth"][0])}


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadamw", "lamb"])
def test_optimizer_step_decreases_the_loss(name):
    groups = make_groups()
    optimizer = make_optimizer(OptimConfig(name=name, lr=0.01), groups, nn.Identity())
    sum(p.square().sum() for params in groups.values() for p in params).backward()
    optimizer.step()
    assert all((p < 1).all() for params in groups.values() for p in params)


def test_momentum_and_learning_rate_are_passed_to_the_optimizer():
    optimizer = make_test_optimizer(OptimConfig(name="sgd", lr=0.2, momentum=0.7))
    assert {(group["momentum"], group["lr"]) for group in optimizer.param_groups} == {(0.7, 0.2)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "adamq"}, r"optim.name: no optimizer 'adamq', did you mean 'adam"),
        ({"name": "adahessian"}, r"optim.name: no optimizer 'adahessian'"),
        (
            {"name": "sgd", "momentum": 0},
            r"optim: cannot create sgd with these options: Nesterov momentum",
        ),
        ({"lr_scale": {"fuson": 2}}, r"optim.lr_scale.fuson: no such group, did you mean 'fusion'"),
        ({"lr_scale": {"edge": 2}}, r"optim.lr_scale.edge: no such group, choose from balancing"),
    ],
)
def test_invalid_options_raise_config_errors(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_test_optimizer(OptimConfig(**settings))


@pytest.mark.parametrize("name", ["adam", "adamw", "momentum", "lamb"])
def test_fused_steps_equal_unfused_steps(name):
    """Fused kernels are used if they exist, and differ only by rounding."""
    optimizer = make_test_optimizer(OptimConfig(name=name, lr=0.01))
    assert optimizer.defaults.get("fused", False) == (name != "lamb")
    params = [param for group in optimizer.param_groups for param in group["params"]]
    reference = timm.optim.create_optimizer_v2(
        [
            {"params": [p.detach().clone() for p in group["params"]], "weight_decay": decay}
            for group in optimizer.param_groups
            for decay in [group["weight_decay"]]
        ],
        opt=name,
        lr=0.01,
    )
    reference_params = [param for group in reference.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        for param, reference_param in zip(params, reference_params, strict=True):
            param.grad = torch.randn(param.shape, generator=generator)
            reference_param.grad = param.grad.clone()
        optimizer.step()
        reference.step()
    for param, reference_param in zip(params, reference_params, strict=True):
        torch.testing.assert_close(param.detach(), reference_param, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("interval", ["epoch", "step"])
def test_one_epoch_with_cosine_prints_no_warning(interval, caplog):
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    LRSchedule(ScheduleConfig(name="cosine", interval=interval), optimizer, 1, 1)
    assert caplog.records == []
    timm.scheduler.CosineLRScheduler(optimizer, 1)
    assert "Cosine annealing" in caplog.text  # other users of timm still see it


@pytest.mark.skipif(torch.cuda.is_available(), reason="some of these optimizers need a GPU")
@pytest.mark.parametrize("options", [{}, {"eps": 1e-6}])
@pytest.mark.parametrize("name", [n for n in OPTIMIZERS if n.startswith(("bnb", "fused"))])
def test_optimizers_that_need_a_gpu_are_one_line(name, options):
    with pytest.raises(ConfigError, match=rf"^optim.name: {name} is not available here: .*CUDA"):
        make_test_optimizer(OptimConfig(name=name, options=options))

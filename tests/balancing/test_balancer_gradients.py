"""Balancers against gradients worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from densemtl import registry
from densemtl.balancing.base import LossScaler
from densemtl.errors import ConfigError
from densemtl.types import Losses
from tests.helpers.balancing_driver import UNSCALED, accumulate

LOSSES = {"semseg": 2.0, "depth": 0.5, "normals": 3.0}


@pytest.fixture
def tasks(make_task):
    return [make_task(name) for name in LOSSES]


@pytest.fixture
def balancer(tasks):
    return lambda name, count=3, **options: registry.create(
        "balancing", name, tasks[:count], options=options
    )


class Slopes(nn.Module):
    """One parameter a task; each loss is its parameter times a number, so gradients are plain."""

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.ParameterDict({task: nn.Parameter(torch.ones(())) for task in LOSSES})

    def losses(self, tasks=tuple(LOSSES), values=LOSSES, terms=None) -> Losses:
        return Losses({task: values[task] * self.slopes[task] for task in tasks}, terms or {})

    def gradients(self) -> list[float]:
        return [self.slopes[task].grad.item() for task in LOSSES]


def step(rule, losses: Losses, scale=None):
    """Of one batch."""
    return accumulate(rule, [lambda: losses], nn.Identity(), scale)


def test_fixed_weights_are_the_usual_ones_unless_given(balancer):
    model = Slopes()
    balance = step(balancer("fixed", weights={"depth": 4.0}), model.losses())
    assert model.gradients() == [1 * 2.0, 4 * 0.5, 10 * 3.0]
    assert {task: weight.item() for task, weight in balance.weights.items()} == {
        "semseg": 1,
        "depth": 4,
        "normals": 10,
    }
    assert balance.total.item() == 2 + 2 + 30
    assert not balance.total.requires_grad


def test_a_single_task_weighs_1(make_task):
    fixed = registry.create("balancing", "fixed", [make_task("normals")], options={})
    assert step(fixed, Losses({"normals": torch.tensor(3.0, requires_grad=True)})).total == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"edge": 1.0}, "no task 'edge'"),
        ({"depth": -1.0}, "weights.depth: Input should be greater"),
    ],
)
def test_fixed_refuses(balancer, weights, message):
    with pytest.raises(ConfigError, match=message):
        balancer("fixed", weights=weights)


def test_uncertainty_by_hand(balancer):
    """Weights exp(-s) for classes and exp(-s) / 2 for the others; ds = -weight * loss + 1/2."""
    model, initial = Slopes(), 0.3
    learned = balancer("uncertainty", initial=initial)
    balance = step(learned, model.losses())
    e = math.exp(-initial)
    assert model.gradients() == pytest.approx([2 * e, 0.5 * e / 2, 3 * e / 2])
    expected = [0.5 - 2 * e, 0.5 - 0.5 * e / 2, 0.5 - 3 * e / 2]
    assert learned.log_variance.grad.tolist() == pytest.approx(expected)
    total = 2 * e + 0.25 * e + 1.5 * e + 3 * initial / 2
    assert balance.total.item() == pytest.approx(total)
    assert not any(weight.requires_grad for weight in balance.weights.values())


def test_uncertainty_settles_where_the_variance_is_the_loss(balancer):
    learned = balancer("uncertainty")
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        step(learned, Slopes().losses())
        optimizer.step()
    expected = [math.log(2 * 2.0), math.log(0.5), math.log(3.0)]
    assert learned.log_variance.tolist() == pytest.approx(expected, abs=1e-3)


def test_uncertainty_learns_nothing_from_a_batch_without_label(balancer):
    model = Slopes()
    learned = balancer("uncertainty", initial=0.7)
    step(learned, model.losses(values=LOSSES | {"depth": 0.0}))
    assert learned.log_variance.grad[1] == 0
    assert (learned.log_variance.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_scale_multiplies_gradients_but_not_what_is_reported(balancer, name):
    plain, scaled = Slopes(), Slopes()
    one = step(balancer(name), plain.losses())
    other = step(balancer(name), scaled.losses(), LossScaler(UNSCALED, 4))
    assert scaled.gradients() == pytest.approx([value / 4 for value in plain.gradients()])
    assert one.total == other.total


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_gradients_of_several_batches_add_up(balancer, name):
    model, rule = Slopes(), balancer(name)
    step(rule, model.losses())
    once = model.gradients()
    step(rule, model.losses())
    assert model.gradients() == pytest.approx([2 * value for value in once])


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_the_architectures_own_terms_are_added_as_they_are(balancer, name):
    model, knob = Slopes(), nn.Parameter(torch.tensor(0.5))
    plain = step(balancer(name), model.losses())
    rule = balancer(name)
    balance = step(rule, model.losses(terms={"a": 2 * knob, "b": 3 * knob}))
    assert knob.grad.item() == 5
    assert (balance.total - plain.total).item() == pytest.approx(2.5)


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_state_survives_saving(balancer, name):
    rule, fresh = balancer(name), balancer(name)
    with torch.no_grad():
        for parameter in rule.parameters():
            parameter += 0.25
    fresh.load_state_dict(rule.state_dict())
    losses = Slopes().losses
    assert step(fresh, losses()).total == step(rule, losses()).total

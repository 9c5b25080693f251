"""Fixed and uncertainty weights compared with gradients computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from densemtl import registry
from densemtl.balancing.backward_passes import LossScaler
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
    """Model with one parameter per task.

    Each loss is its parameter times a constant, so that the gradient is the constant.
    """

    def __init__(self) -> None:
        super().__init__()
        self.slopes = nn.ParameterDict({task: nn.Parameter(torch.ones(())) for task in LOSSES})

    def losses(self, tasks=tuple(LOSSES), values=LOSSES, terms=None) -> Losses:
        return Losses({task: values[task] * self.slopes[task] for task in tasks}, terms or {})

    def gradients(self) -> list[float]:
        return [self.slopes[task].grad.item() for task in LOSSES]


def step(method, losses: Losses, scale=None):
    """Run one optimizer step with one batch."""
    return accumulate(method, [lambda: losses], nn.Identity(), scale)


def test_fixed_weights_default_to_task_weights(balancer):
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


def test_fixed_weight_of_single_task_is_one(make_task):
    fixed = registry.create("balancing", "fixed", [make_task("normals")], options={})
    assert step(fixed, Losses({"normals": torch.tensor(3.0, requires_grad=True)})).total == 3


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"edge": 1.0}, "no task 'edge'"),
        ({"depth": -1.0}, "weights.depth: Input should be greater"),
    ],
)
def test_fixed_rejects_invalid_weights(balancer, weights, message):
    with pytest.raises(ConfigError, match=message):
        balancer("fixed", weights=weights)


def test_uncertainty_gradients_by_hand(balancer):
    """Weights are exp(-s), halved for regression; the gradient of s is -weight * loss + 1/2."""
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


def test_uncertainty_converges_to_loss_as_variance(balancer):
    learned = balancer("uncertainty")
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        step(learned, Slopes().losses())
        optimizer.step()
    expected = [math.log(2 * 2.0), math.log(0.5), math.log(3.0)]
    assert learned.log_variance.tolist() == pytest.approx(expected, abs=1e-3)


def test_uncertainty_has_no_gradient_without_label(balancer):
    model = Slopes()
    learned = balancer("uncertainty", initial=0.7)
    step(learned, model.losses(values=LOSSES | {"depth": 0.0}))
    assert learned.log_variance.grad[1] == 0
    assert (learned.log_variance.grad[[0, 2]] != 0).all()


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_scale_changes_gradients_but_not_reported_total(balancer, name):
    plain, scaled = Slopes(), Slopes()
    one = step(balancer(name), plain.losses())
    other = step(balancer(name), scaled.losses(), LossScaler(UNSCALED, 4))
    assert scaled.gradients() == pytest.approx([value / 4 for value in plain.gradients()])
    assert one.total == other.total


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_gradients_accumulate_over_batches(balancer, name):
    model, method = Slopes(), balancer(name)
    step(method, model.losses())
    once = model.gradients()
    step(method, model.losses())
    assert model.gradients() == pytest.approx([2 * value for value in once])


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_auxiliary_losses_are_added_unweighted(balancer, name):
    model, parameter = Slopes(), nn.Parameter(torch.tensor(0.5))
    plain = step(balancer(name), model.losses())
    method = balancer(name)
    balance = step(method, model.losses(terms={"a": 2 * parameter, "b": 3 * parameter}))
    assert parameter.grad.item() == 5
    assert (balance.total - plain.total).item() == pytest.approx(2.5)


@pytest.mark.parametrize("name", ["fixed", "uncertainty"])
def test_state_dict_round_trip(balancer, name):
    method, fresh = balancer(name), balancer(name)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter += 0.25
    fresh.load_state_dict(method.state_dict())
    losses = Slopes().losses
    assert step(fresh, losses()).total == step(method, losses()).total

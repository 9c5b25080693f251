"""Loss-weighting methods compared with weights computed by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.backward_passes import BalancingOutput, LossScaler
from densemtl.balancing.base import LossWeighting
from densemtl.errors import ConfigError
from densemtl.types import Losses
from tests.helpers.balancing_driver import UNSCALED, accumulate

NAMES = ("semseg", "depth", "normals")
LOSSES = (2.0, 0.5, 4.0)
METHODS = ("equal", "dwa", "rlw", "gls", "dtp", "imtl_l", "stch", "famo", "fixed", "uncertainty")
Make = Callable[..., LossWeighting]


@pytest.fixture
def make(make_task) -> Make:
    def build(name: str, names: tuple[str, ...] = NAMES, **options) -> LossWeighting:
        torch.manual_seed(5)
        return registry.create(
            "balancing", name, [make_task(task) for task in names], options=options
        )

    return build


def make_task_losses(*values: float, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    return {
        name: torch.tensor(value, requires_grad=True)
        for name, value in zip(names, values, strict=True)
    }


def combine(method: LossWeighting, losses: dict[str, Tensor]) -> BalancingOutput:
    """Run one step with one batch."""
    return accumulate(method, [lambda: Losses(losses)], nn.Identity())


def report_weights(method: LossWeighting, *values: float) -> list[float]:
    """Return the reported weights."""
    return [weight.item() for weight in combine(method, make_task_losses(*values)).weights.values()]


def compute_loss_gradients(method: LossWeighting, losses: dict[str, Tensor]) -> list[float]:
    """Return the gradients of the losses after a step."""
    combine(method, losses)
    return [loss.grad.item() for loss in losses.values()]


def run_some_steps(method: LossWeighting) -> None:
    """Run two epochs of two steps, with a call of `after_step` for each."""
    for epoch in range(2):
        for step in range(2):
            before = make_task_losses(
                *(loss / (1 + epoch + step * 0.3 * i) for i, loss in enumerate(LOSSES))
            )
            combine(method, before)
            stacked = method.stack_losses(before).detach()
            method.after_step(stacked, stacked * (0.9 - 0.1 * step))
        method.end_epoch()


@pytest.mark.parametrize("name", METHODS)
def test_reported_weights_are_derivatives_of_total(make: Make, name: str) -> None:
    method = make(name)
    run_some_steps(method)
    fresh = make(name)
    fresh.load_state_dict(method.state_dict())
    assert report_weights(method, *LOSSES) == pytest.approx(
        compute_loss_gradients(fresh, make_task_losses(*LOSSES)), rel=1e-5
    )


@pytest.mark.parametrize("name", METHODS)
def test_auxiliary_losses_are_added_unweighted(make: Make, name: str) -> None:
    parameter = nn.Parameter(torch.tensor(0.5))
    plain = combine(make(name), make_task_losses(*LOSSES))
    losses = Losses(make_task_losses(*LOSSES), {"a": 2 * parameter, "b": 3 * parameter})
    balance = accumulate(make(name), [lambda: losses], nn.Identity(), LossScaler(UNSCALED, 4))
    assert parameter.grad.item() == 5 / 4
    assert (balance.total - plain.total).item() == pytest.approx(2.5, rel=1e-5)
    assert not any(weight.requires_grad for weight in balance.weights.values())


@pytest.mark.parametrize("name", [method for method in METHODS if method != "rlw"])
def test_order_of_tasks_does_not_matter(make: Make, name: str) -> None:
    """RLW is excluded, because it samples its weights in the order of tasks."""
    reversed_names = tuple(reversed(NAMES))
    method, other = make(name), make(name, reversed_names)
    for values in (LOSSES, (1.0, 0.25, 5.0)):
        ours = dict(zip(NAMES, values, strict=True))
        theirs = make_task_losses(*(ours[task] for task in reversed_names), names=reversed_names)
        for each, losses in ((method, make_task_losses(*values)), (other, theirs)):
            combine(each, losses)
            halved = {"semseg": 0.5, "depth": 0.9, "normals": 0.7}
            after = {task: loss * halved[task] for task, loss in losses.items()}
            each.after_step(*(each.stack_losses(one).detach() for one in (losses, after)))
            each.end_epoch()
    one = combine(method, make_task_losses(*LOSSES)).weights
    two = combine(other, {task: make_task_losses(*LOSSES)[task] for task in reversed_names}).weights
    for task in NAMES:
        assert one[task].item() == pytest.approx(two[task].item(), rel=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_task_without_label_keeps_other_weights_positive(make: Make, name: str) -> None:
    method = make(name)
    run_some_steps(method)
    balance = combine(method, make_task_losses(2.0, 0.0, 4.0))
    assert balance.total.isfinite()
    assert all(weight.isfinite() for weight in balance.weights.values())
    assert all(balance.weights[task] > 0 for task in ("semseg", "normals"))
    none_at_all = combine(method, make_task_losses(0.0, 0.0, 0.0))
    assert none_at_all.total.isfinite()
    assert all(weight.isfinite() for weight in none_at_all.weights.values())


@pytest.mark.parametrize("name", METHODS)
def test_nonfinite_loss_is_not_saved_in_state(make: Make, name: str) -> None:
    method = make(name)
    run_some_steps(method)
    for broken in (math.nan, math.inf):
        assert not combine(method, make_task_losses(2.0, broken, 4.0)).total.isfinite()
        before = torch.tensor(LOSSES)
        method.after_step(before, torch.tensor([LOSSES[0], broken, LOSSES[2]]))
        method.end_epoch()
    assert all(math.isfinite(weight) for weight in report_weights(method, *LOSSES))


@pytest.mark.parametrize(
    "name", [method for method in METHODS if method not in ("fixed", "imtl_l")]
)
def test_weights_are_never_negative(make: Make, name: str) -> None:
    method = make(name)
    for scale in (1e-4, 1.0, 1e4):
        run_some_steps(method)
        assert min(report_weights(method, *(scale * loss for loss in LOSSES))) >= 0


def test_equal_weights_are_one(make: Make) -> None:
    balance = combine(make("equal"), make_task_losses(*LOSSES))
    assert balance.total.item() == 6.5
    assert report_weights(make("equal"), *LOSSES) == [1, 1, 1]


# DWA


def run_epoch(method: LossWeighting, *batches: tuple[float, ...]) -> None:
    for values in batches:
        combine(method, make_task_losses(*values))
    method.end_epoch()


def softmax(*values: float) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def test_dwa_by_hand(make: Make) -> None:
    """The means of the two epochs are (3, 1, 4) and (1.5, 1, 3); the ratios are 1/2, 1, 3/4."""
    method = make("dwa", temperature=2.0)
    assert report_weights(method, 2.0, 1.0, 5.0) == pytest.approx([1, 1, 1])
    run_epoch(method, (4.0, 1.0, 3.0))
    assert report_weights(method, 1.0, 1.0, 2.0) == pytest.approx([1, 1, 1])
    run_epoch(method, (2.0, 1.0, 4.0))
    expected = [3 * share for share in softmax(0.25, 0.5, 0.375)]
    for values in (LOSSES, (1.0, 9.0, 1.0)):
        assert report_weights(method, *values) == pytest.approx(expected, rel=1e-6)
    assert sum(report_weights(method, *LOSSES)) == pytest.approx(3)


def test_dwa_temperature_scales_ratios(make: Make) -> None:
    for temperature in (0.5, 10.0):
        method = make("dwa", temperature=temperature)
        run_epoch(method, (1.0, 1.0, 1.0))
        run_epoch(method, (0.5, 1.0, 1.5))
        ratios = [each / temperature for each in (0.5, 1.0, 1.5)]
        assert report_weights(method, *LOSSES) == pytest.approx(
            [3 * share for share in softmax(*ratios)]
        )


def test_dwa_ignores_steps_without_label(make: Make) -> None:
    """The means of depth are over its labeled batches; in the third epoch, it has no label."""
    method = make("dwa")
    run_epoch(method, (1.0, 1.0, 1.0), (1.0, 0.0, 1.0))
    run_epoch(method, (1.0, 0.0, 1.0), (1.0, 3.0, 1.0))
    expected = [3 * share for share in softmax(0.5, 1.5, 0.5)]
    assert report_weights(method, *LOSSES) == pytest.approx(expected)
    method.epoch.compute_and_reset()
    run_epoch(method, (1.0, 0.0, 1.0))
    assert report_weights(method, *LOSSES) == pytest.approx(expected)


# RLW


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_rlw_samples_simplex_in_every_step(make: Make, distribution: str) -> None:
    method = make("rlw", distribution=distribution)
    drawn = torch.tensor([report_weights(method, *LOSSES) for _ in range(2000)])
    torch.testing.assert_close(drawn.sum(1), torch.full((2000,), 3.0))
    assert (drawn > 0).all()
    torch.testing.assert_close(drawn.mean(0), torch.ones(3), atol=0.07, rtol=0)
    assert len({tuple(row) for row in drawn.tolist()}) == 2000


def test_rlw_dirichlet_is_uniform_on_the_simplex(make: Make) -> None:
    """A part of Dirichlet(1, 1, 1) is Beta(1, 2): P(part > 1/2) = 1/4, and its variance is 1/18."""
    method = make("rlw", distribution="dirichlet")
    parts = torch.tensor([report_weights(method, *LOSSES) for _ in range(2000)]) / 3
    assert (parts[:, 0] > 0.5).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert parts.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.006)


def test_rlw_is_seeded_and_keeps_global_rng_state(make: Make) -> None:
    method = make("rlw")
    before = torch.get_rng_state()
    first = report_weights(method, *LOSSES)
    assert torch.equal(torch.get_rng_state(), before)
    assert report_weights(make("rlw"), *LOSSES) == first


# GLS


def test_gls_by_hand(make: Make) -> None:
    """The cube root of 2 * 1/2 * 4 is 4^(1/3); a weight is a third of it over the loss."""
    balance, mean = combine(make("gls"), make_task_losses(*LOSSES)), 4 ** (1 / 3)
    assert balance.total.item() == pytest.approx(mean)
    expected = [mean / 3 / loss for loss in LOSSES]
    assert [weight.item() for weight in balance.weights.values()] == pytest.approx(expected)


def test_gls_ignores_tasks_without_label(make: Make) -> None:
    balance = combine(make("gls"), make_task_losses(2.0, 0.0, 8.0))
    assert balance.total.item() == pytest.approx(4)
    assert [weight.item() for weight in balance.weights.values()] == pytest.approx([1, 0, 0.25])


@pytest.mark.parametrize("name", ["gls", "stch"])
def test_direction_is_invariant_to_loss_scales(make: Make, name: str) -> None:
    """The proportions of weighted losses w L do not depend on the scale of each loss."""
    options = {"warmup_epochs": 1, "mu": 0.5} if name == "stch" else {}
    one, other, units = make(name, **options), make(name, **options), (7.0, 0.01, 1.0)
    for values in (LOSSES, (1.0, 0.4, 3.5)):
        ours = torch.tensor(report_weights(one, *values)) * torch.tensor(values)
        scaled = [unit * value for unit, value in zip(units, values, strict=True)]
        theirs = torch.tensor(report_weights(other, *scaled)) * torch.tensor(scaled)
        torch.testing.assert_close(ours / ours.sum(), theirs / theirs.sum())
        one.end_epoch(), other.end_epoch()


# DTP


def test_dtp_by_hand(make: Make) -> None:
    method = make("dtp", gamma=2.0, alpha=0.25)
    first = [math.exp(-loss) for loss in LOSSES]
    assert report_weights(method, *LOSSES) == pytest.approx(
        [(1 - k) ** 2 * -math.log(k) for k in first]
    )
    later = [0.75 * k + 0.25 * math.exp(-1.0) for k in first]
    expected = [(1 - k) ** 2 * -math.log(k) for k in later]
    assert report_weights(method, 1.0, 1.0, 1.0) == pytest.approx(expected)


def test_dtp_ignores_steps_without_label(make: Make) -> None:
    method = make("dtp")
    assert report_weights(method, 1.0, 0.0, 1.0)[1] == 0
    first = report_weights(method, 1.0, 2.0, 1.0)
    assert report_weights(method, 1.0, 0.0, 1.0)[1] == first[1] > 0


def test_dtp_weights_increase_with_loss_and_are_bounded(make: Make) -> None:
    easy, medium, hopeless = report_weights(make("dtp"), 0.01, 1.0, 1e5)
    assert easy < medium < hopeless == pytest.approx(-math.log(1e-6), rel=1e-4)


# IMTL-L


def test_imtl_l_by_hand(make: Make) -> None:
    method = make("imtl_l")
    with torch.no_grad():
        method.log_scale.copy_(torch.tensor([0.0, 0.5, -1.0]))
    balance = combine(method, make_task_losses(*LOSSES))
    weights = [1, math.exp(0.5), math.exp(-1)]
    weighted = [weight * loss for weight, loss in zip(weights, LOSSES, strict=True)]
    assert balance.total.item() == pytest.approx(sum(weighted) - 0.5 + 1)
    assert method.log_scale.grad.tolist() == pytest.approx([each - 1 for each in weighted])


def test_imtl_l_converges_to_weighted_losses_of_one(make: Make) -> None:
    method = make("imtl_l")
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    losses = (2.0, 0.2, 5.0)
    for _ in range(400):
        optimizer.zero_grad()
        combine(method, make_task_losses(*losses))
        optimizer.step()
    assert report_weights(method, *losses) == pytest.approx([1 / loss for loss in losses], rel=1e-3)


def test_imtl_l_has_no_gradient_without_label(make: Make) -> None:
    method = make("imtl_l")
    combine(method, make_task_losses(2.0, 0.0, 4.0))
    assert method.log_scale.grad.tolist() == [1, 0, 3]


# STCH


def test_stch_by_hand(make: Make) -> None:
    """The references are the means of the last epoch of the warm-up: 3, 1, 4."""
    method, mu = make("stch", mu=0.5, warmup_epochs=2), 0.5
    run_epoch(method, (9.0, 9.0, 9.0))
    balance = combine(method, make_task_losses(2.0, 1.5, 3.0))
    assert balance.total.item() == pytest.approx(math.log(2 * 1.5 * 3))
    assert report_weights(method, 4.0, 0.5, 5.0) == pytest.approx([1 / 4, 1 / 0.5, 1 / 5])
    method.end_epoch()
    for _ in range(2):
        balance = combine(method, make_task_losses(*LOSSES))
        logs = [math.log(2 / 3), math.log(0.5 / 1), math.log(4 / 4)]
        expected = mu * math.log(sum(math.exp(each / mu) for each in logs))
        assert balance.total.item() == pytest.approx(expected, rel=1e-5)
        shares = softmax(*(each / mu for each in logs))
        weights = [weight.item() for weight in balance.weights.values()]
        assert weights == pytest.approx([s / v for s, v in zip(shares, LOSSES, strict=True)])
        method.end_epoch()


def test_stch_approaches_worst_task_for_small_mu(make: Make) -> None:
    method = make("stch", mu=0.01, warmup_epochs=0)
    balance = combine(method, make_task_losses(*LOSSES))
    assert balance.total.item() == pytest.approx(math.log(4.0), abs=1e-3)
    assert balance.weights["semseg"] < 1e-6 < 0.24 < balance.weights["normals"]


def test_stch_ignores_tasks_without_label(make: Make) -> None:
    method, pair = make("stch", warmup_epochs=1), make("stch", NAMES[::2], warmup_epochs=1)
    run_epoch(method, (2.0, 0.0, 4.0))
    combine(pair, make_task_losses(2.0, 4.0, names=NAMES[::2]))
    pair.end_epoch()
    ours = combine(method, make_task_losses(1.0, 0.0, 3.0))
    theirs = combine(pair, make_task_losses(1.0, 3.0, names=NAMES[::2]))
    assert ours.total.item() == pytest.approx(theirs.total.item(), rel=1e-6)
    assert ours.weights["depth"] == 0
    assert method.reference.tolist() == [2, 1, 4]


# FAMO


def update_after_step(
    method: LossWeighting, before: tuple[float, ...], after: tuple[float, ...]
) -> None:
    """Call `after_step` with losses before and after a step."""
    method.after_step(torch.tensor(before), torch.tensor(after))


def test_famo_starts_with_inverse_losses(make: Make) -> None:
    weights = report_weights(make("famo"), *LOSSES)
    assert weights == pytest.approx([0.5 / 2.75, 2 / 2.75, 0.25 / 2.75])


def test_famo_equals_independent_adam(make: Make) -> None:
    """Adam and autograd of torch update the logits along sum_i d_i softmax(logits)_i."""
    method = make("famo", lr=0.1, decay=0.02)
    logits = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, weight_decay=0.02)
    for step in range(5):
        before = (2.0, 0.5 + step, 4.0)
        after = (1.9, 0.5, 4.1 - 0.2 * step)
        update_after_step(method, before, after)
        adam.zero_grad()
        fell = torch.tensor(before).log() - torch.tensor(after).log()
        (fell * logits.softmax(0)).sum().backward()
        adam.step()
    assert method.logits.tolist() == pytest.approx(logits.tolist(), rel=1e-4)
    raw = logits.softmax(0) / torch.tensor(LOSSES)
    assert report_weights(method, *LOSSES) == pytest.approx((raw / raw.sum()).tolist(), rel=1e-4)


def test_famo_favors_slowest_loss(make: Make) -> None:
    method = make("famo")
    update_after_step(method, LOSSES, (1.0, 0.5, 3.0))
    shares = method.logits.softmax(0)
    assert shares[1] == shares.max() > shares.min() == shares[0]


def test_famo_ignores_tasks_without_label(make: Make) -> None:
    method, pair = make("famo"), make("famo", NAMES[::2])
    update_after_step(method, (2.0, 0.0, 4.0), (1.0, 0.0, 3.9))
    update_after_step(pair, (2.0, 4.0), (1.0, 3.9))
    assert method.logits.tolist()[::2] == pytest.approx(pair.logits.tolist())
    assert method.logits[1] == 0
    weights = report_weights(method, 2.0, 0.0, 4.0)
    assert weights[1] == 0
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("dwa", {"temperature": 0.0}, "dwa.temperature: Input should be greater than 0, not 0.0"),
        ("dtp", {"gamma": -1.0}, "dtp.gamma: Input should be greater than or equal to 0, not -1.0"),
        ("dtp", {"alpha": 0.0}, "dtp.alpha: Input should be greater than 0, not 0.0"),
        ("stch", {"mu": 0.0}, "stch.mu: Input should be greater than 0, not 0.0"),
        ("stch", {"warmup_epochs": -1}, "stch.warmup_epochs: Input should be greater"),
        ("famo", {"lr": 0.0}, "famo.lr: Input should be greater than 0, not 0.0"),
        ("famo", {"decay": -0.1}, "famo.decay: Input should be greater than or equal to 0"),
        ("rlw", {"distribution": "uniform"}, "rlw.distribution: Input should be 'normal' or"),
    ],
)
def test_options_out_of_range_are_rejected(
    make: Make, name: str, options: dict, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, **options)
    assert str(caught.value).startswith(message)
    assert len(str(caught.value).splitlines()) == 1

"""Rules that weigh losses by the losses, against weights worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from densemtl import registry
from densemtl.balancing.base import BalancingOutput, LossScaler, LossWeighting
from densemtl.errors import ConfigError
from densemtl.types import Losses
from tests.helpers.balancing_driver import UNSCALED, accumulate

NAMES = ("semseg", "depth", "normals")
LOSSES = (2.0, 0.5, 4.0)
RULES = ("equal", "dwa", "rlw", "gls", "dtp", "imtl_l", "stch", "famo", "fixed", "uncertainty")
Make = Callable[..., LossWeighting]


@pytest.fixture
def make(make_task) -> Make:
    def build(name: str, names: tuple[str, ...] = NAMES, **options) -> LossWeighting:
        torch.manual_seed(5)
        return registry.create(
            "balancing", name, [make_task(task) for task in names], options=options
        )

    return build


def given(*values: float, names: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    return {
        name: torch.tensor(value, requires_grad=True)
        for name, value in zip(names, values, strict=True)
    }


def combine(rule: LossWeighting, losses: dict[str, Tensor]) -> BalancingOutput:
    """A step of one batch."""
    return accumulate(rule, [lambda: Losses(losses)], nn.Identity())


def weigh(rule: LossWeighting, *values: float) -> list[float]:
    """The weights that are reported."""
    return [weight.item() for weight in combine(rule, given(*values)).weights.values()]


def slopes(rule: LossWeighting, losses: dict[str, Tensor]) -> list[float]:
    """What a step adds to the gradients of the losses."""
    combine(rule, losses)
    return [loss.grad.item() for loss in losses.values()]


def some_history(rule: LossWeighting) -> None:
    """Two epochs of two steps, each looked at again."""
    for epoch in range(2):
        for step in range(2):
            before = given(*(loss / (1 + epoch + step * 0.3 * i) for i, loss in enumerate(LOSSES)))
            combine(rule, before)
            stacked = rule.stack_losses(before).detach()
            rule.after_step(stacked, stacked * (0.9 - 0.1 * step))
        rule.end_epoch()


@pytest.mark.parametrize("name", RULES)
def test_reported_weights_are_the_derivatives(make: Make, name: str) -> None:
    rule = make(name)
    some_history(rule)
    fresh = make(name)
    fresh.load_state_dict(rule.state_dict())
    assert weigh(rule, *LOSSES) == pytest.approx(slopes(fresh, given(*LOSSES)), rel=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_the_architectures_own_terms_are_added_as_they_are(make: Make, name: str) -> None:
    knob = nn.Parameter(torch.tensor(0.5))
    plain = combine(make(name), given(*LOSSES))
    losses = Losses(given(*LOSSES), {"a": 2 * knob, "b": 3 * knob})
    balance = accumulate(make(name), [lambda: losses], nn.Identity(), LossScaler(UNSCALED, 4))
    assert knob.grad.item() == 5 / 4
    assert (balance.total - plain.total).item() == pytest.approx(2.5, rel=1e-5)
    assert not any(weight.requires_grad for weight in balance.weights.values())


@pytest.mark.parametrize("name", [rule for rule in RULES if rule != "rlw"])
def test_the_order_of_tasks_does_not_matter(make: Make, name: str) -> None:
    """RLW's numbers fall to tasks in their order."""
    turned = tuple(reversed(NAMES))
    rule, other = make(name), make(name, turned)
    for values in (LOSSES, (1.0, 0.25, 5.0)):
        ours = dict(zip(NAMES, values, strict=True))
        theirs = given(*(ours[task] for task in turned), names=turned)
        for each, losses in ((rule, given(*values)), (other, theirs)):
            combine(each, losses)
            halved = {"semseg": 0.5, "depth": 0.9, "normals": 0.7}
            after = {task: loss * halved[task] for task, loss in losses.items()}
            each.after_step(*(each.stack_losses(one).detach() for one in (losses, after)))
            each.end_epoch()
    one = combine(rule, given(*LOSSES)).weights
    two = combine(other, {task: given(*LOSSES)[task] for task in turned}).weights
    for task in NAMES:
        assert one[task].item() == pytest.approx(two[task].item(), rel=1e-5)


@pytest.mark.parametrize("name", RULES)
def test_a_task_without_label_gets_no_gradient_and_harms_no_other(make: Make, name: str) -> None:
    rule = make(name)
    some_history(rule)
    balance = combine(rule, given(2.0, 0.0, 4.0))
    assert balance.total.isfinite()
    assert all(weight.isfinite() for weight in balance.weights.values())
    assert all(balance.weights[task] > 0 for task in ("semseg", "normals"))
    none_at_all = combine(rule, given(0.0, 0.0, 0.0))
    assert none_at_all.total.isfinite()
    assert all(weight.isfinite() for weight in none_at_all.weights.values())


@pytest.mark.parametrize("name", RULES)
def test_a_loss_that_is_not_finite_shows_but_is_not_remembered(make: Make, name: str) -> None:
    rule = make(name)
    some_history(rule)
    for broken in (math.nan, math.inf):
        assert not combine(rule, given(2.0, broken, 4.0)).total.isfinite()
        before = torch.tensor(LOSSES)
        rule.after_step(before, torch.tensor([LOSSES[0], broken, LOSSES[2]]))
        rule.end_epoch()
    assert all(math.isfinite(weight) for weight in weigh(rule, *LOSSES))


@pytest.mark.parametrize("name", [rule for rule in RULES if rule not in ("fixed", "imtl_l")])
def test_weights_are_never_negative(make: Make, name: str) -> None:
    rule = make(name)
    for scale in (1e-4, 1.0, 1e4):
        some_history(rule)
        assert min(weigh(rule, *(scale * loss for loss in LOSSES))) >= 0


def test_equal(make: Make) -> None:
    balance = combine(make("equal"), given(*LOSSES))
    assert balance.total.item() == 6.5
    assert weigh(make("equal"), *LOSSES) == [1, 1, 1]


# DWA


def epoch(rule: LossWeighting, *batches: tuple[float, ...]) -> None:
    for values in batches:
        combine(rule, given(*values))
    rule.end_epoch()


def softmax(*values: float) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def test_dwa_by_hand(make: Make) -> None:
    """Means of the two epochs: (3, 1, 4) and (1.5, 1, 3), so ratios are 1/2, 1, 3/4."""
    rule = make("dwa", temperature=2.0)
    assert weigh(rule, 2.0, 1.0, 5.0) == pytest.approx([1, 1, 1])
    epoch(rule, (4.0, 1.0, 3.0))
    assert weigh(rule, 1.0, 1.0, 2.0) == pytest.approx([1, 1, 1])
    epoch(rule, (2.0, 1.0, 4.0))
    expected = [3 * share for share in softmax(0.25, 0.5, 0.375)]
    for values in (LOSSES, (1.0, 9.0, 1.0)):
        assert weigh(rule, *values) == pytest.approx(expected, rel=1e-6)
    assert sum(weigh(rule, *LOSSES)) == pytest.approx(3)


def test_dwa_is_sharper_at_a_lower_temperature(make: Make) -> None:
    for temperature in (0.5, 10.0):
        rule = make("dwa", temperature=temperature)
        epoch(rule, (1.0, 1.0, 1.0))
        epoch(rule, (0.5, 1.0, 1.5))
        ratios = [each / temperature for each in (0.5, 1.0, 1.5)]
        assert weigh(rule, *LOSSES) == pytest.approx([3 * share for share in softmax(*ratios)])


def test_dwa_leaves_out_what_has_no_label(make: Make) -> None:
    """Depth's means are of its labelled batches; in the third epoch it has none at all."""
    rule = make("dwa")
    epoch(rule, (1.0, 1.0, 1.0), (1.0, 0.0, 1.0))
    epoch(rule, (1.0, 0.0, 1.0), (1.0, 3.0, 1.0))
    expected = [3 * share for share in softmax(0.5, 1.5, 0.5)]
    assert weigh(rule, *LOSSES) == pytest.approx(expected)
    rule.epoch.compute_and_reset()
    epoch(rule, (1.0, 0.0, 1.0))
    assert weigh(rule, *LOSSES) == pytest.approx(expected)


# RLW


@pytest.mark.parametrize("distribution", ["normal", "dirichlet"])
def test_rlw_draws_anew_from_the_simplex(make: Make, distribution: str) -> None:
    rule = make("rlw", distribution=distribution)
    drawn = torch.tensor([weigh(rule, *LOSSES) for _ in range(2000)])
    torch.testing.assert_close(drawn.sum(1), torch.full((2000,), 3.0))
    assert (drawn > 0).all()
    torch.testing.assert_close(drawn.mean(0), torch.ones(3), atol=0.07, rtol=0)
    assert len({tuple(row) for row in drawn.tolist()}) == 2000


def test_rlw_dirichlet_is_uniform_on_the_simplex(make: Make) -> None:
    """Of Dirichlet(1, 1, 1) a part is Beta(1, 2): P(part > 1/2) = 1/4, its variance 1/18."""
    rule = make("rlw", distribution="dirichlet")
    parts = torch.tensor([weigh(rule, *LOSSES) for _ in range(2000)]) / 3
    assert (parts[:, 0] > 0.5).float().mean().item() == pytest.approx(0.25, abs=0.04)
    assert parts.var(0).tolist() == pytest.approx([1 / 18] * 3, abs=0.006)


def test_rlw_follows_from_the_seed_and_disturbs_no_other_number(make: Make) -> None:
    rule = make("rlw")
    before = torch.get_rng_state()
    first = weigh(rule, *LOSSES)
    assert torch.equal(torch.get_rng_state(), before)
    assert weigh(make("rlw"), *LOSSES) == first


# GLS


def test_gls_by_hand(make: Make) -> None:
    """The cube root of 2 * 1/2 * 4 is 4^(1/3); each loss weighs a third of it over itself."""
    balance, mean = combine(make("gls"), given(*LOSSES)), 4 ** (1 / 3)
    assert balance.total.item() == pytest.approx(mean)
    expected = [mean / 3 / loss for loss in LOSSES]
    assert [weight.item() for weight in balance.weights.values()] == pytest.approx(expected)


def test_gls_is_of_those_that_have_labels(make: Make) -> None:
    balance = combine(make("gls"), given(2.0, 0.0, 8.0))
    assert balance.total.item() == pytest.approx(4)
    assert [weight.item() for weight in balance.weights.values()] == pytest.approx([1, 0, 0.25])


@pytest.mark.parametrize("name", ["gls", "stch"])
def test_a_loss_in_other_units_changes_no_direction(make: Make, name: str) -> None:
    """Weighted losses, w L, keep their proportions whatever each loss is multiplied by."""
    options = {"warmup_epochs": 1, "mu": 0.5} if name == "stch" else {}
    one, other, units = make(name, **options), make(name, **options), (7.0, 0.01, 1.0)
    for values in (LOSSES, (1.0, 0.4, 3.5)):
        ours = torch.tensor(weigh(one, *values)) * torch.tensor(values)
        scaled = [unit * value for unit, value in zip(units, values, strict=True)]
        theirs = torch.tensor(weigh(other, *scaled)) * torch.tensor(scaled)
        torch.testing.assert_close(ours / ours.sum(), theirs / theirs.sum())
        one.end_epoch(), other.end_epoch()


# DTP


def test_dtp_by_hand(make: Make) -> None:
    rule = make("dtp", gamma=2.0, alpha=0.25)
    first = [math.exp(-loss) for loss in LOSSES]
    assert weigh(rule, *LOSSES) == pytest.approx([(1 - k) ** 2 * -math.log(k) for k in first])
    later = [0.75 * k + 0.25 * math.exp(-1.0) for k in first]
    expected = [(1 - k) ** 2 * -math.log(k) for k in later]
    assert weigh(rule, 1.0, 1.0, 1.0) == pytest.approx(expected)


def test_dtp_does_not_follow_what_has_no_label(make: Make) -> None:
    rule = make("dtp")
    assert weigh(rule, 1.0, 0.0, 1.0)[1] == 0
    first = weigh(rule, 1.0, 2.0, 1.0)
    assert weigh(rule, 1.0, 0.0, 1.0)[1] == first[1] > 0


def test_dtp_prefers_what_is_hard_and_survives_what_is_hopeless(make: Make) -> None:
    easy, medium, hopeless = weigh(make("dtp"), 0.01, 1.0, 1e5)
    assert easy < medium < hopeless == pytest.approx(-math.log(1e-6), rel=1e-4)


# IMTL-L


def test_imtl_l_by_hand(make: Make) -> None:
    rule = make("imtl_l")
    with torch.no_grad():
        rule.log_scale.copy_(torch.tensor([0.0, 0.5, -1.0]))
    balance = combine(rule, given(*LOSSES))
    weights = [1, math.exp(0.5), math.exp(-1)]
    weighted = [weight * loss for weight, loss in zip(weights, LOSSES, strict=True)]
    assert balance.total.item() == pytest.approx(sum(weighted) - 0.5 + 1)
    assert rule.log_scale.grad.tolist() == pytest.approx([each - 1 for each in weighted])


def test_imtl_l_settles_where_weighted_losses_are_1_in_any_unit(make: Make) -> None:
    rule = make("imtl_l")
    optimizer = torch.optim.Adam(rule.parameters(), lr=0.1)
    losses = (2.0, 0.2, 5.0)
    for _ in range(400):
        optimizer.zero_grad()
        combine(rule, given(*losses))
        optimizer.step()
    assert weigh(rule, *losses) == pytest.approx([1 / loss for loss in losses], rel=1e-3)


def test_imtl_l_learns_nothing_without_label(make: Make) -> None:
    rule = make("imtl_l")
    combine(rule, given(2.0, 0.0, 4.0))
    assert rule.log_scale.grad.tolist() == [1, 0, 3]


# STCH


def test_stch_by_hand(make: Make) -> None:
    """References are the means of the warm-up's last epoch: 3, 1, 4."""
    rule, mu = make("stch", mu=0.5, warmup_epochs=2), 0.5
    epoch(rule, (9.0, 9.0, 9.0))
    balance = combine(rule, given(2.0, 1.5, 3.0))
    assert balance.total.item() == pytest.approx(math.log(2 * 1.5 * 3))
    assert weigh(rule, 4.0, 0.5, 5.0) == pytest.approx([1 / 4, 1 / 0.5, 1 / 5])
    rule.end_epoch()
    for _ in range(2):
        balance = combine(rule, given(*LOSSES))
        logs = [math.log(2 / 3), math.log(0.5 / 1), math.log(4 / 4)]
        expected = mu * math.log(sum(math.exp(each / mu) for each in logs))
        assert balance.total.item() == pytest.approx(expected, rel=1e-5)
        shares = softmax(*(each / mu for each in logs))
        weights = [weight.item() for weight in balance.weights.values()]
        assert weights == pytest.approx([s / v for s, v in zip(shares, LOSSES, strict=True)])
        rule.end_epoch()


def test_stch_goes_to_the_worst_task_as_mu_goes_to_0(make: Make) -> None:
    rule = make("stch", mu=0.01, warmup_epochs=0)
    balance = combine(rule, given(*LOSSES))
    assert balance.total.item() == pytest.approx(math.log(4.0), abs=1e-3)
    assert balance.weights["semseg"] < 1e-6 < 0.24 < balance.weights["normals"]


def test_stch_leaves_out_what_has_no_label(make: Make) -> None:
    rule, pair = make("stch", warmup_epochs=1), make("stch", NAMES[::2], warmup_epochs=1)
    epoch(rule, (2.0, 0.0, 4.0))
    combine(pair, given(2.0, 4.0, names=NAMES[::2]))
    pair.end_epoch()
    ours = combine(rule, given(1.0, 0.0, 3.0))
    theirs = combine(pair, given(1.0, 3.0, names=NAMES[::2]))
    assert ours.total.item() == pytest.approx(theirs.total.item(), rel=1e-6)
    assert ours.weights["depth"] == 0
    assert rule.reference.tolist() == [2, 1, 4]


# FAMO


def fall(rule: LossWeighting, before: tuple[float, ...], after: tuple[float, ...]) -> None:
    """Let a step take the losses from some values to others."""
    rule.after_step(torch.tensor(before), torch.tensor(after))


def test_famo_starts_by_inverse_losses(make: Make) -> None:
    weights = weigh(make("famo"), *LOSSES)
    assert weights == pytest.approx([0.5 / 2.75, 2 / 2.75, 0.25 / 2.75])


def test_famo_by_an_independent_adam(make: Make) -> None:
    """Logits as torch's own Adam and autograd move them along sum_i d_i softmax(logits)_i."""
    rule = make("famo", lr=0.1, decay=0.02)
    logits = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([logits], lr=0.1, weight_decay=0.02)
    for step in range(5):
        before = (2.0, 0.5 + step, 4.0)
        after = (1.9, 0.5, 4.1 - 0.2 * step)
        fall(rule, before, after)
        adam.zero_grad()
        fell = torch.tensor(before).log() - torch.tensor(after).log()
        (fell * logits.softmax(0)).sum().backward()
        adam.step()
    assert rule.logits.tolist() == pytest.approx(logits.tolist(), rel=1e-4)
    raw = logits.softmax(0) / torch.tensor(LOSSES)
    assert weigh(rule, *LOSSES) == pytest.approx((raw / raw.sum()).tolist(), rel=1e-4)


def test_famo_favours_what_falls_behind(make: Make) -> None:
    rule = make("famo")
    fall(rule, LOSSES, (1.0, 0.5, 3.0))
    shares = rule.logits.softmax(0)
    assert shares[1] == shares.max() > shares.min() == shares[0]


def test_famo_leaves_out_what_has_no_label(make: Make) -> None:
    rule, pair = make("famo"), make("famo", NAMES[::2])
    fall(rule, (2.0, 0.0, 4.0), (1.0, 0.0, 3.9))
    fall(pair, (2.0, 4.0), (1.0, 3.9))
    assert rule.logits.tolist()[::2] == pytest.approx(pair.logits.tolist())
    assert rule.logits[1] == 0
    weights = weigh(rule, 2.0, 0.0, 4.0)
    assert weights[1] == 0
    assert sum(weights) == pytest.approx(1)


@pytest.mark.parametrize(
    ("name", "options", "told"),
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
def test_options_are_checked(make: Make, name: str, options: dict, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make(name, **options)
    assert str(caught.value).startswith(told)
    assert len(str(caught.value).splitlines()) == 1

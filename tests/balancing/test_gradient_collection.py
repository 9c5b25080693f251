"""Collecting gradients and descending their weighted sum, whatever the rule."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.base import LossScaler
from densemtl.balancing.graddrop import SignDrop
from densemtl.balancing.gradient_base import GradientBalancer
from densemtl.errors import ConfigError
from densemtl.types import Losses
from tests.helpers.balancing_driver import TIMES_1024, accumulate
from tests.helpers.small_network import (
    GRAMIAN_METHODS,
    TASK_NAMES,
    TORCHJD_METHODS,
    SmallNetwork,
    make_balancer,
    make_random_data,
    run_step,
)

SCOPES = ("features", "parameters")


class Given(GradientBalancer):
    """Weights that a test sets."""

    def weights(self, gradients: GradientSummary) -> Tensor:
        return torch.tensor([self.given[task] for task in gradients.tasks])


@pytest.fixture
def given(make_task):
    def build(rule_weights: list[float], **options: object) -> Given:
        rule = Given([make_task(name) for name in TASK_NAMES], **options)
        rule.given = rule_weights
        return rule

    return build


def needs(name: str) -> None:
    if name in TORCHJD_METHODS:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')


def descended(model: SmallNetwork, shared: list[float]) -> list[Tensor]:
    """Gradients by plain autograd: weighted in the trunk, plain in heads."""
    losses = list(model.compute_losses(make_random_data()).tasks.values())
    trunk = model.parameter_groups()["shared"]
    weighted = sum(weight * loss for weight, loss in zip(shared, losses, strict=True))
    heads = list(model.heads.parameters())
    kept = {"retain_graph": True}
    return [
        *torch.autograd.grad(weighted, trunk, **kept),
        *torch.autograd.grad(sum(losses), heads, **kept),
    ]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_weights_count_in_what_is_shared_alone(given, scope):
    model, weights = SmallNetwork(), [0.5, 0.0, 2.0]
    balance = run_step(given(weights, scope=scope), model, make_random_data())
    assert_close(model.clone_gradients(), descended(model, weights))
    assert [float(weight) for weight in balance.weights.values()] == weights
    losses = [loss.item() for loss in model.compute_losses(make_random_data()).tasks.values()]
    assert float(balance.total) == pytest.approx(0.5 * losses[0] + 2 * losses[2])
    assert not balance.total.requires_grad


@pytest.mark.parametrize("scope", SCOPES)
def test_what_was_there_before_is_added_to(given, scope):
    model, rule = SmallNetwork(), given([1.0, 2.0, 3.0], scope=scope)
    run_step(rule, model, make_random_data())
    once = model.clone_gradients()
    accumulate(rule, [lambda: model.compute_losses(make_random_data())], model)
    assert_close(model.clone_gradients(), [2 * gradient for gradient in once])


@pytest.mark.parametrize("scope", SCOPES)
def test_given_factors_come_first(given, scope):
    """They are on the loss of heads too, and what is weighed, measured and told holds them."""
    model, factors = SmallNetwork(), {"depth": 5.0}
    rule = given([1.0, 2.0, 1.0], scope=scope, weights=factors)
    balance = run_step(rule, model, make_random_data())
    plain = run_step(given([1.0, 2.0, 1.0], scope=scope), SmallNetwork(), make_random_data())
    assert balance.weights["depth"] == 10
    for name, factor in (("semseg", 1), ("depth", 5)):
        expected = factor * float(plain.log_values[f"norm/{name}"])
        assert float(balance.log_values[f"norm/{name}"]) == pytest.approx(expected)
    head = model.heads["depth"].weight.grad
    loss = model.compute_losses(make_random_data()).tasks["depth"]
    expected = 5 * torch.autograd.grad(loss, model.heads["depth"].weight)[0]
    torch.testing.assert_close(head, expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_the_architectures_own_terms_are_added_as_they_are(given, scope):
    model, plain = SmallNetwork(), SmallNetwork()
    rule = given([0.0, 1.0, 3.0], scope=scope)

    def with_term() -> Losses:
        losses = model.compute_losses(make_random_data())
        weights = model.heads["semseg"].weight.square().sum() + model.first.weight.sum()
        return Losses(losses.tasks, {"term": weights})

    balance = accumulate(rule, [with_term], model)
    before = run_step(given([0.0, 1.0, 3.0], scope=scope), plain, make_random_data())
    own = model.heads["semseg"].weight
    assert_close([model.first.weight.grad], [plain.first.weight.grad + 1])
    assert_close([own.grad], [plain.heads["semseg"].weight.grad + 2 * own.detach()])
    term = float(own.square().sum() + model.first.weight.sum())
    assert float(balance.total - before.total) == pytest.approx(term)


def test_measures_are_lengths_and_cosines_of_the_gradients(given):
    model = SmallNetwork()
    balance = run_step(given([1.0] * 3, scope="parameters"), model, make_random_data())
    trunk = model.parameter_groups()["shared"]
    rows = []
    for loss in model.compute_losses(make_random_data()).tasks.values():
        gradients = torch.autograd.grad(loss, trunk, retain_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    assert float(balance.log_values["norm/depth"]) == pytest.approx(float(rows[1].norm()), rel=1e-5)
    cosine = torch.nn.functional.cosine_similarity(rows[0], rows[2], dim=0)
    found = float(balance.log_values["cosine/semseg~normals"])
    assert found == pytest.approx(float(cosine), rel=1e-5)
    assert len(balance.log_values) == 3 + 3


AGGREGATORS = {
    "upgrad": "UPGrad()",
    "mgda": "MGDA()",
    "pcgrad": "PCGrad()",
    "cagrad": "CAGrad(c=0.5)",
    "imtl_g": "IMTLG()",
    "aligned_mtl": "AlignedMTL()",
    "dual_proj": "DualProj()",
}
"""Of TorchJD, which need no more than their Gramian and are the same at any scale of it."""


def theirs(name: str) -> object:
    import torchjd.aggregation as library

    return eval(AGGREGATORS[name], vars(library))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_at_parameters_it_is_torchjds_own_backward(name):
    needs(name)
    from torchjd.autojac import jac_to_grad, mtl_backward

    ours, other = SmallNetwork(), SmallNetwork()
    run_step(make_balancer(name, scope="parameters"), ours, make_random_data())
    # One joined map, for TorchJD counts twice what is handed over and also makes another map.
    seen: list[Tensor] = []
    other.heads["semseg"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    losses = list(other.compute_losses(make_random_data()).tasks.values())
    trunk = other.parameter_groups()["shared"]
    heads = [list(head.parameters()) for head in other.heads.values()]
    places = {"tasks_params": heads, "shared_params": trunk}
    mtl_backward(losses, seen, **places, retain_graph=True, parallel_chunk_size=1)
    torch.default_generator.manual_seed(1)  # the number of the step
    jac_to_grad(trunk, theirs(name))
    for one, its in zip(ours.clone_gradients(), other.clone_gradients(), strict=True):
        torch.testing.assert_close(one, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_at_features_it_is_torchjds_own_backward_to_leaves(name):
    needs(name)
    from torchjd.autojac import backward, jac_to_grad

    ours, other = SmallNetwork(), SmallNetwork()
    run_step(make_balancer(name, scope="features"), ours, make_random_data())
    with other.shared_features.detach() as detached:
        losses = list(other.compute_losses(make_random_data()).tasks.values())
    backward(losses, inputs=detached.leaves, retain_graph=True, parallel_chunk_size=1)
    torch.default_generator.manual_seed(1)
    jac_to_grad(detached.leaves, theirs(name))
    torch.autograd.backward(detached.features, [leaf.grad for leaf in detached.leaves])
    for one, its in zip(ours.parameter_groups()["shared"], other.parameters(), strict=False):
        torch.testing.assert_close(one.grad, its.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_accumulating_parts_equals_one_batch(name, scope):
    """For two steps, since rules remember."""
    needs(name)
    whole, parts = SmallNetwork(), SmallNetwork()
    one, other = make_balancer(name, scope=scope), make_balancer(name, scope=scope)
    for seed in range(2):
        inputs, targets = make_random_data(seed=seed)
        joined = run_step(one, whole, (inputs, targets))
        cut = zip(inputs.chunk(4), targets.chunk(4), strict=True)
        split = run_step(other, parts, *cut)
        for found, expected in zip(parts.clone_gradients(), whole.clone_gradients(), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
        for key, value in {**joined.weights, **joined.log_values, "total": joined.total}.items():
            found = {**split.weights, **split.log_values, "total": split.total}[key]
            torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-6)


def without(task: int) -> tuple[Tensor, Tensor]:
    inputs, targets = make_random_data()
    targets[:, task] = torch.nan
    return inputs, targets


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_a_task_without_label_has_no_part(name, scope):
    needs(name)
    three, two = SmallNetwork(), SmallNetwork(("semseg", "depth"))
    two.load_state_dict({k: v for k, v in three.state_dict().items() if "normals" not in k})
    balance = run_step(make_balancer(name, scope=scope), three, without(2))
    inputs, targets = make_random_data()
    expected = run_step(
        make_balancer(name, ("semseg", "depth"), scope=scope), two, (inputs, targets[:, :2])
    )
    assert balance.weights["normals"] == 0
    assert balance.log_values["norm/normals"] == 0
    for task in ("semseg", "depth"):
        torch.testing.assert_close(balance.weights[task], expected.weights[task])
    assert_close([three.first.weight.grad], [two.first.weight.grad])


@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_one_task_alone_with_labels_is_followed_as_it_is(name):
    needs(name)
    model, (inputs, targets) = SmallNetwork(), make_random_data()
    targets[:, 1:] = torch.nan
    assert run_step(make_balancer(name), model, (inputs, targets)).weights["semseg"] == 1


def broken(model: SmallNetwork) -> Losses:
    """The second loss is finite, but not its gradient: that of a root at 0."""
    losses = model.compute_losses(make_random_data()).tasks
    return Losses(losses | {"depth": losses["depth"] + (losses["depth"] * 0).sqrt()})


@pytest.mark.parametrize("scope", SCOPES)
def test_a_gradient_that_is_not_finite_is_left_out_and_told(given, scope):
    model, rule = SmallNetwork(), given([5.0] * 3, scope=scope)
    expected = descended(model, [1.0, 0.0, 1.0])
    told = r"balancing, step 1: gradient of depth is not finite, step without it"
    with pytest.warns(RuntimeWarning, match=told):
        balance = accumulate(rule, [lambda: broken(model)], model)
    assert [float(weight) for weight in balance.weights.values()] == [1, 0, 1]
    assert all(value.isfinite() for value in balance.log_values.values())
    assert_close(model.clone_gradients()[:4], expected[:4])
    for name, head in model.heads.items():
        gradient = torch.cat([each.grad.flatten() for each in head.parameters()])
        assert bool((gradient == 0).all()) == (name == "depth")
        assert gradient.isfinite().all()


@pytest.mark.parametrize("scope", SCOPES)
def test_loss_scaling_sees_an_overflow(given, scope):
    """Else it would never scale less. It says so itself, so there is no warning."""
    model, rule = SmallNetwork(), given([5.0] * 3, scope=scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accumulate(rule, [lambda: broken(model)], model, LossScaler(TIMES_1024))
    assert not model.first.weight.grad.isfinite().all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_loss_scaling_changes_no_weight(name, scope):
    needs(name)
    plain, scaled = SmallNetwork(), SmallNetwork()
    one = run_step(make_balancer(name, scope=scope), plain, make_random_data())
    rule = make_balancer(name, scope=scope)
    other = accumulate(
        rule, [lambda: scaled.compute_losses(make_random_data())], scaled, LossScaler(TIMES_1024)
    )
    for task, weight in one.weights.items():
        torch.testing.assert_close(other.weights[task], weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(other.log_values["norm/depth"], one.log_values["norm/depth"])
    for found, expected in zip(scaled.clone_gradients(), plain.clone_gradients(), strict=True):
        torch.testing.assert_close(found / 1024, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("failure", ["raises", "nan"])
def test_weights_that_cannot_be_found_make_a_plain_step(given, monkeypatch, failure):
    model, rule = SmallNetwork(), given([torch.nan, 1.0, 1.0])

    def fail(_: GradientSummary) -> Tensor:
        raise ValueError("no\nsolution")

    if failure == "raises":
        monkeypatch.setattr(rule, "weights", fail)
    reason = "ValueError: no solution" if failure == "raises" else "they are not finite"
    told = rf"step 1: no weights for semseg, depth, normals \({reason}\), plain sum"
    expected = descended(model, [1.0] * 3)
    with pytest.warns(RuntimeWarning, match=told):
        run_step(rule, model, make_random_data())
    assert_close(model.clone_gradients(), expected)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", [*GRAMIAN_METHODS, "graddrop"])
def test_saved_in_the_middle_it_goes_on_bit_for_bit(name, scope):
    needs(name)
    if name == "graddrop" and scope == "parameters":
        pytest.skip("acts on features alone")
    options = {} if name == "graddrop" else {"scope": scope}

    def train(rule: GradientBalancer, model: SmallNetwork, steps: range) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for number in steps:
            run_step(rule, model, make_random_data(seed=number))
            optimizer.step()

    whole, rule = SmallNetwork(), make_balancer(name, **options)
    train(rule, whole, range(6))
    parts, first, second = (
        SmallNetwork(),
        make_balancer(name, **options),
        make_balancer(name, **options),
    )
    train(first, parts, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    torch.manual_seed(7)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(second, parts, range(3, 6))
    pairs = zip(whole.parameters(), parts.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_the_state_of_an_older_checkpoint_is_read():
    rule, usual = make_balancer("gradvac"), torch.full((3, 3), 0.25).double()
    rule.load_state_dict({"_extra_state": {"steps": 4, "memory": {"usual": usual}}})
    assert rule.steps == 4
    assert rule.state.keys() == {"target_cosine"}
    assert torch.equal(rule.state["target_cosine"], usual)


@pytest.mark.parametrize("name", ["pcgrad", "gradvac", "graddrop"])
def test_rules_that_draw_leave_all_other_random_numbers_alone(name):
    needs(name)
    model = SmallNetwork()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run_step(make_balancer(name), model, make_random_data())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_frozen_parts_of_the_shared(given, scope):
    """The first map needs no gradient then, and counts for nothing."""
    model = SmallNetwork()
    model.first.requires_grad_(False)
    expected = descended_of(model, [0.5, 0.0, 2.0])
    run_step(given([0.5, 0.0, 2.0], scope=scope), model, make_random_data())
    assert model.first.weight.grad is None
    assert_close([model.second.weight.grad], [expected])


def descended_of(model: SmallNetwork, weights: list[float]) -> Tensor:
    losses = model.compute_losses(make_random_data()).tasks.values()
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return torch.autograd.grad(total, model.second.weight)[0]


@pytest.mark.parametrize("scope", SCOPES)
def test_with_nothing_shared_it_is_refused(given, scope):
    model = SmallNetwork()
    for part in (model.first, model.second):
        part.requires_grad_(False)
    with pytest.raises(ConfigError, match="shares no parameters that are trained"):
        given([1.0] * 3, scope=scope).validate_model(model)


def test_features_need_a_handover(given):
    model = SmallNetwork()
    model.shared_features = nn.Identity()
    given([1.0] * 3, scope="parameters").validate_model(model)
    with pytest.raises(
        ConfigError, match="hands its tasks no features in common: set scope: param"
    ):
        given([1.0] * 3).validate_model(model)


def test_a_single_task_has_nothing_to_weigh(make_task):
    with pytest.raises(ConfigError, match="one task has no gradients to weigh: use fixed"):
        Given([make_task("depth")]).validate_model(SmallNetwork(("depth",)))


def drop(leak: float, features: Tensor, gradients: list[list[float]]) -> Tensor:
    """What GradDrop lets pass of gradients at a Bx1 map, Tx B."""
    sieve = SignDrop(1, leak)
    rows = [[torch.tensor(row)[:, None]] for row in gradients]
    sieve.observe([features], rows)
    sieve.apply([features], rows)
    return torch.stack([row[0][:, 0] for row in rows])


def test_graddrop_passes_what_all_agree_on():
    """Signs count times the feature's: gradients 1 and -1 at features 1 and -1 agree."""
    features = torch.tensor([[1.0], [-1.0]])
    agreed = [[1.0, -1.0], [2.0, -0.5]]
    assert torch.equal(drop(0.0, features, agreed), torch.tensor(agreed))


def test_graddrop_passes_one_sign_with_the_chance_of_its_purity():
    """Sums 3 and -1: purity (1 + 2 / 4) / 2 = 3/4; many entries, each drawn for itself."""
    sieve, count = SignDrop(1, 0.0), 4000
    features = torch.ones(1, count)
    rows = [[torch.full((1, count), 3.0)], [torch.full((1, count), -1.0)]]
    sieve.observe([features], rows)
    sieve.apply([features], rows)
    first, second = rows[0][0][0], rows[1][0][0]
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(3.0, 0.0), (0.0, -1.0)}
    assert float((first > 0).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_graddrop_with_a_leak_of_all_is_the_plain_sum():
    model = SmallNetwork()
    run_step(make_balancer("graddrop", leak=1.0), model, make_random_data())
    assert_close(model.clone_gradients(), descended(model, [1.0] * 3))

"""Collection of task gradients and their weighted sum, for any gradient method."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
from torch import Tensor, nn

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.balancing.backward_passes import LossScaler
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


class FixedGradientWeights(GradientBalancer):
    """Gradient method with weights that a test sets."""

    def weights(self, gradients: GradientSummary) -> Tensor:
        return torch.tensor([self.given[task] for task in gradients.tasks])


@pytest.fixture
def given(make_task):
    def build(task_weights: list[float], **options: object) -> FixedGradientWeights:
        method = FixedGradientWeights([make_task(name) for name in TASK_NAMES], **options)
        method.given = task_weights
        return method

    return build


def skip_without_extra(name: str) -> None:
    if name in TORCHJD_METHODS:
        pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')


def expected_gradients(model: SmallNetwork, shared: list[float]) -> list[Tensor]:
    """Compute the expected gradients by autograd: weighted in the trunk, unweighted in heads."""
    losses = list(model.compute_losses(make_random_data()).tasks.values())
    trunk = model.parameter_groups()["shared"]
    weighted = sum(weight * loss for weight, loss in zip(shared, losses, strict=True))
    heads = list(model.heads.parameters())
    keep_graph = {"retain_graph": True}
    return [
        *torch.autograd.grad(weighted, trunk, **keep_graph),
        *torch.autograd.grad(sum(losses), heads, **keep_graph),
    ]


def assert_close(found: list[Tensor], expected: list[Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("scope", SCOPES)
def test_weights_apply_to_shared_parameters_only(given, scope):
    model, weights = SmallNetwork(), [0.5, 0.0, 2.0]
    balance = run_step(given(weights, scope=scope), model, make_random_data())
    assert_close(model.clone_gradients(), expected_gradients(model, weights))
    assert [float(weight) for weight in balance.weights.values()] == weights
    losses = [loss.item() for loss in model.compute_losses(make_random_data()).tasks.values()]
    assert float(balance.total) == pytest.approx(0.5 * losses[0] + 2 * losses[2])
    assert not balance.total.requires_grad


@pytest.mark.parametrize("scope", SCOPES)
def test_gradients_accumulate(given, scope):
    model, method = SmallNetwork(), given([1.0, 2.0, 3.0], scope=scope)
    run_step(method, model, make_random_data())
    once = model.clone_gradients()
    accumulate(method, [lambda: model.compute_losses(make_random_data())], model)
    assert_close(model.clone_gradients(), [2 * gradient for gradient in once])


@pytest.mark.parametrize("scope", SCOPES)
def test_loss_factors_are_applied_before_the_method(given, scope):
    """The option `weights` also scales the losses of heads, and is part of weights and norms."""
    model, factors = SmallNetwork(), {"depth": 5.0}
    method = given([1.0, 2.0, 1.0], scope=scope, weights=factors)
    balance = run_step(method, model, make_random_data())
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
def test_auxiliary_losses_are_added_unweighted(given, scope):
    model, plain = SmallNetwork(), SmallNetwork()
    method = given([0.0, 1.0, 3.0], scope=scope)

    def with_term() -> Losses:
        losses = model.compute_losses(make_random_data())
        weights = model.heads["semseg"].weight.square().sum() + model.first.weight.sum()
        return Losses(losses.tasks, {"term": weights})

    balance = accumulate(method, [with_term], model)
    before = run_step(given([0.0, 1.0, 3.0], scope=scope), plain, make_random_data())
    head_weight = model.heads["semseg"].weight
    assert_close([model.first.weight.grad], [plain.first.weight.grad + 1])
    assert_close([head_weight.grad], [plain.heads["semseg"].weight.grad + 2 * head_weight.detach()])
    term = float(head_weight.square().sum() + model.first.weight.sum())
    assert float(balance.total - before.total) == pytest.approx(term)


def test_log_values_are_norms_and_cosines(given):
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
    "pcgrad": "PCGrad()",
    "cagrad": "CAGrad(c=0.5)",
    "imtl_g": "IMTLG()",
    "aligned_mtl": "AlignedMTL()",
    "dual_proj": "DualProj()",
}
"""Aggregators of TorchJD that depend only on the Gramian and not on its scale.

Its MGDA is not among them, because it approximates the shortest vector.
"""


def make_aggregator(name: str) -> object:
    import torchjd.aggregation as library

    return eval(AGGREGATORS[name], vars(library))


@pytest.mark.parametrize("name", AGGREGATORS)
def test_parameters_scope_equals_torchjd_backward(name):
    skip_without_extra(name)
    from torchjd.autojac import jac_to_grad, mtl_backward

    ours, other = SmallNetwork(), SmallNetwork()
    run_step(make_balancer(name, scope="parameters"), ours, make_random_data())
    # Use one concatenated map, because TorchJD counts a feature twice that another one depends on.
    seen: list[Tensor] = []
    other.heads["semseg"].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    losses = list(other.compute_losses(make_random_data()).tasks.values())
    trunk = other.parameter_groups()["shared"]
    heads = [list(head.parameters()) for head in other.heads.values()]
    groups = {"tasks_params": heads, "shared_params": trunk}
    mtl_backward(losses, seen, **groups, retain_graph=True, parallel_chunk_size=1)
    torch.default_generator.manual_seed(1)  # Seed with the number of the step.
    jac_to_grad(trunk, make_aggregator(name))
    for one, theirs in zip(ours.clone_gradients(), other.clone_gradients(), strict=True):
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_features_scope_equals_torchjd_backward_to_features(name):
    skip_without_extra(name)
    from torchjd.autojac import backward, jac_to_grad

    ours, other = SmallNetwork(), SmallNetwork()
    run_step(make_balancer(name, scope="features"), ours, make_random_data())
    with other.shared_features.detach() as detached:
        losses = list(other.compute_losses(make_random_data()).tasks.values())
    backward(losses, inputs=detached.leaves, retain_graph=True, parallel_chunk_size=1)
    torch.default_generator.manual_seed(1)
    jac_to_grad(detached.leaves, make_aggregator(name))
    torch.autograd.backward(detached.features, [leaf.grad for leaf in detached.leaves])
    for one, theirs in zip(ours.parameter_groups()["shared"], other.parameters(), strict=False):
        torch.testing.assert_close(one.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_micro_batches_equal_one_batch(name, scope):
    """Train two steps, because methods have state."""
    skip_without_extra(name)
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


def make_data_without_task(task: int) -> tuple[Tensor, Tensor]:
    inputs, targets = make_random_data()
    targets[:, task] = torch.nan
    return inputs, targets


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_task_without_label_is_excluded(name, scope):
    skip_without_extra(name)
    three, two = SmallNetwork(), SmallNetwork(("semseg", "depth"))
    two.load_state_dict({k: v for k, v in three.state_dict().items() if "normals" not in k})
    balance = run_step(make_balancer(name, scope=scope), three, make_data_without_task(2))
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
def test_single_labeled_task_has_weight_one(name):
    skip_without_extra(name)
    model, (inputs, targets) = SmallNetwork(), make_random_data()
    targets[:, 1:] = torch.nan
    assert run_step(make_balancer(name), model, (inputs, targets)).weights["semseg"] == 1


def compute_broken_losses(model: SmallNetwork) -> Losses:
    """Compute losses of which the second is finite, but not its gradient (a square root at 0)."""
    losses = model.compute_losses(make_random_data()).tasks
    return Losses(losses | {"depth": losses["depth"] + (losses["depth"] * 0).sqrt()})


@pytest.mark.parametrize("scope", SCOPES)
def test_nonfinite_gradient_is_excluded_with_warning(given, scope):
    model, method = SmallNetwork(), given([5.0] * 3, scope=scope)
    expected = expected_gradients(model, [1.0, 0.0, 1.0])
    message = r"balancing, step 1: the gradient of depth is not finite and is left out of this step"
    with pytest.warns(RuntimeWarning, match=message):
        balance = accumulate(method, [lambda: compute_broken_losses(model)], model)
    assert [float(weight) for weight in balance.weights.values()] == [1, 0, 1]
    assert all(value.isfinite() for value in balance.log_values.values())
    assert_close(model.clone_gradients()[:4], expected[:4])
    for name, head in model.heads.items():
        gradient = torch.cat([each.grad.flatten() for each in head.parameters()])
        assert bool((gradient == 0).all()) == (name == "depth")
        assert gradient.isfinite().all()


@pytest.mark.parametrize("scope", SCOPES)
def test_overflow_is_visible_to_loss_scaler(given, scope):
    """Gradients stay non-finite, so that the loss scaler reduces its scale. There is no warning."""
    model, method = SmallNetwork(), given([5.0] * 3, scope=scope)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        accumulate(method, [lambda: compute_broken_losses(model)], model, LossScaler(TIMES_1024))
    assert not model.first.weight.grad.isfinite().all()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_loss_scaling_does_not_change_weights(name, scope):
    skip_without_extra(name)
    plain, scaled = SmallNetwork(), SmallNetwork()
    one = run_step(make_balancer(name, scope=scope), plain, make_random_data())
    method = make_balancer(name, scope=scope)
    other = accumulate(
        method, [lambda: scaled.compute_losses(make_random_data())], scaled, LossScaler(TIMES_1024)
    )
    for task, weight in one.weights.items():
        torch.testing.assert_close(other.weights[task], weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(other.log_values["norm/depth"], one.log_values["norm/depth"])
    for found, expected in zip(scaled.clone_gradients(), plain.clone_gradients(), strict=True):
        torch.testing.assert_close(found / 1024, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("failure", ["raises", "nan"])
def test_failure_to_compute_weights_gives_plain_sum(given, monkeypatch, failure):
    model, method = SmallNetwork(), given([torch.nan, 1.0, 1.0])

    def fail(_: GradientSummary) -> Tensor:
        raise ValueError("no\nsolution")

    if failure == "raises":
        monkeypatch.setattr(method, "weights", fail)
    reason = "ValueError: no solution" if failure == "raises" else "they are not finite"
    message = (
        rf"step 1: cannot compute weights for semseg, depth, normals \({reason}\), "
        "using the plain sum"
    )
    expected = expected_gradients(model, [1.0] * 3)
    with pytest.warns(RuntimeWarning, match=message):
        run_step(method, model, make_random_data())
    assert_close(model.clone_gradients(), expected)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", [*GRAMIAN_METHODS, "graddrop"])
def test_resume_is_bit_exact(name, scope):
    skip_without_extra(name)
    if name == "graddrop" and scope == "parameters":
        pytest.skip("acts on features only")
    options = {} if name == "graddrop" else {"scope": scope}

    def train(method: GradientBalancer, model: SmallNetwork, steps: range) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for number in steps:
            run_step(method, model, make_random_data(seed=number))
            optimizer.step()

    whole, method = SmallNetwork(), make_balancer(name, **options)
    train(method, whole, range(6))
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


def test_state_of_older_checkpoint_is_loaded():
    method, target_cosine = make_balancer("gradvac"), torch.full((3, 3), 0.25).double()
    method.load_state_dict({"_extra_state": {"steps": 4, "memory": {"usual": target_cosine}}})
    assert method.steps == 4
    assert method.state.keys() == {"target_cosine"}
    assert torch.equal(method.state["target_cosine"], target_cosine)


@pytest.mark.parametrize("name", ["pcgrad", "gradvac", "graddrop"])
def test_random_methods_keep_global_rng_state(name):
    skip_without_extra(name)
    model = SmallNetwork()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run_step(make_balancer(name), model, make_random_data())
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("scope", SCOPES)
def test_frozen_shared_parameters(given, scope):
    """The first map then needs no gradient and does not influence the weights."""
    model = SmallNetwork()
    model.first.requires_grad_(False)
    expected = expected_second_gradient(model, [0.5, 0.0, 2.0])
    run_step(given([0.5, 0.0, 2.0], scope=scope), model, make_random_data())
    assert model.first.weight.grad is None
    assert_close([model.second.weight.grad], [expected])


def expected_second_gradient(model: SmallNetwork, weights: list[float]) -> Tensor:
    losses = model.compute_losses(make_random_data()).tasks.values()
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True))
    return torch.autograd.grad(total, model.second.weight)[0]


@pytest.mark.parametrize("scope", SCOPES)
def test_model_without_shared_parameters_is_rejected(given, scope):
    model = SmallNetwork()
    for part in (model.first, model.second):
        part.requires_grad_(False)
    with pytest.raises(ConfigError, match="shares no trainable parameters"):
        given([1.0] * 3, scope=scope).validate_model(model)


def test_features_scope_needs_shared_features(given):
    model = SmallNetwork()
    model.shared_features = nn.Identity()
    given([1.0] * 3, scope="parameters").validate_model(model)
    with pytest.raises(
        ConfigError, match=r"passes no features to all tasks \(set balancing.scope=param"
    ):
        given([1.0] * 3).validate_model(model)


def test_single_task_is_rejected(make_task):
    with pytest.raises(
        ConfigError, match=r"a gradient method needs two or more tasks \(use fixed\)"
    ):
        FixedGradientWeights([make_task("depth")]).validate_model(SmallNetwork(("depth",)))


def apply_graddrop(leak: float, features: Tensor, gradients: list[list[float]]) -> Tensor:
    """Return the gradients that GradDrop keeps at a map of shape (B, 1), shape (T, B)."""
    sign_drop = SignDrop(1, leak)
    rows = [[torch.tensor(row)[:, None]] for row in gradients]
    sign_drop.observe([features], rows)
    sign_drop.apply([features], rows)
    return torch.stack([row[0][:, 0] for row in rows])


def test_graddrop_keeps_agreeing_gradients():
    """Signs are multiplied by those of features: gradients 1 and -1 at features 1 and -1 agree."""
    features = torch.tensor([[1.0], [-1.0]])
    agreed = [[1.0, -1.0], [2.0, -0.5]]
    assert torch.equal(apply_graddrop(0.0, features, agreed), torch.tensor(agreed))


def test_graddrop_keeps_one_sign_with_probability_of_purity():
    """Sums 3 and -1 have purity (1 + 2 / 4) / 2 = 3/4. Entries are sampled independently."""
    sign_drop, count = SignDrop(1, 0.0), 4000
    features = torch.ones(1, count)
    rows = [[torch.full((1, count), 3.0)], [torch.full((1, count), -1.0)]]
    sign_drop.observe([features], rows)
    sign_drop.apply([features], rows)
    first, second = rows[0][0][0], rows[1][0][0]
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == {(3.0, 0.0), (0.0, -1.0)}
    assert float((first > 0).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_graddrop_with_leak_one_is_plain_sum():
    model = SmallNetwork()
    run_step(make_balancer("graddrop", leak=1.0), model, make_random_data())
    assert_close(model.clone_gradients(), expected_gradients(model, [1.0] * 3))

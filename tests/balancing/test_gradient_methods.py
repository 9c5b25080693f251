"""Gradient methods: golden weights for fixed Gramians, and properties proven in their papers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from densemtl.balancing._gradients.summary import GradientSummary
from densemtl.errors import ConfigError
from tests.helpers.small_network import (
    GRAMIAN_METHODS,
    NATIVE_METHODS,
    TASK_NAMES,
    TORCHJD_METHODS,
    make_balancer,
)

pytest.importorskip("torchjd", reason='needs pip install "densemtl[balancing]"')

TWO = ("semseg", "depth")


def summarize(gramian: Tensor, losses: Tensor | None = None, step: int = 1) -> GradientSummary:
    count = len(gramian)
    values = torch.ones(count, dtype=torch.float64) if losses is None else losses
    return GradientSummary(gramian.double(), values.double(), tuple(range(count)), step)


def weights(name: str, rows: list[list[float]], **options: object) -> list[float]:
    """Return the weights of two tasks with a given Gramian."""
    return make_balancer(name, TWO, **options).weights(summarize(torch.tensor(rows))).tolist()


CONFLICT = [[1.0, -1.0], [-1.0, 4.0]]
"""Two conflicting gradients.

The first gradient minus its component along the second is (1, 1/4), and vice versa (1, 1).
"""
SQUARE = [[1.0, 0.0], [0.0, 4.0]]
"""Orthogonal gradients of norm 1 and 2."""

GOLDEN = [
    ("mgda", [[4.0, 1.0], [1.0, 2.0]], {}, [0.25, 0.75]),  # (g2 . (g2 - g1)) / |g1 - g2|^2
    ("mgda", [[1.0, 2.0], [2.0, 9.0]], {}, [1.0, 0.0]),  # The shortest vector is an end point.
    ("pcgrad", CONFLICT, {}, [2.0, 1.25]),
    ("pcgrad", SQUARE, {}, [1.0, 1.0]),
    ("upgrad", CONFLICT, {}, [1.0, 0.625]),  # mean of the same projections
    ("upgrad", SQUARE, {}, [0.5, 0.5]),
    ("dual_proj", CONFLICT, {}, [0.5, 0.5]),  # The mean has no conflict.
    ("dual_proj", [[1.0, -1.5], [-1.5, 4.0]], {}, [0.75, 0.5]),  # (G w)_1 = w_1 - 3/4 = 0
    ("imtl_g", SQUARE, {}, [2 / 3, 1 / 3]),  # w_i |g_i| equal, sum 1
    ("nash_mtl", SQUARE, {}, [0.5**0.5, 0.5**1.5]),  # w_i = 1 / |g_i|, clipped to norm 1
    ("nash_mtl", SQUARE, {"max_norm": 0.0}, [1.0, 0.5]),  # w_i = 1 / |g_i|
    ("aligned_mtl", SQUARE, {}, [0.5, 0.25]),  # Both have the norm of the shortest.
    ("aligned_mtl", SQUARE, {"scale": "rmse"}, [0.5 * 2.5**0.5, 0.25 * 2.5**0.5]),
    ("fairgrad", SQUARE, {}, [0.4**-0.5, 1.6**-0.5]),  # w = G^(-1/2) at mean diagonal 1
    ("fairgrad", SQUARE, {"alpha": 2.0}, [0.4 ** (-2 / 3), 1.6 ** (-2 / 3)]),
    ("cagrad", CONFLICT, {"c": 0.0}, [0.5, 0.5]),
    ("gradvac", CONFLICT, {}, [2.0, 1.25]),  # same as PCGrad while the target cosine is 0
    ("gradnorm", CONFLICT, {}, [1.0, 1.0]),
]


@pytest.mark.parametrize(("name", "gramian", "options", "expected"), GOLDEN)
def test_golden_weights(name, gramian, options, expected):
    assert weights(name, gramian, **options) == pytest.approx(expected, rel=2e-3, abs=1e-3)


@pytest.mark.parametrize("c", [0.2, 0.5, 0.9])
def test_cagrad_equals_line_search(c):
    """For two tasks, the dual is a function of one number, which another solver minimizes here."""
    gramian = torch.tensor([[1.0, -0.8], [-0.8, 4.0]]).double()
    half = torch.full((2,), 0.5).double()
    radius = c * (half @ gramian @ half).sqrt()

    def mixture(share: float) -> Tensor:
        return torch.tensor([share, 1 - share]).double()

    def dual(share: float) -> float:
        mixed = mixture(share)
        return float(mixed @ gramian @ half + radius * (mixed @ gramian @ mixed).sqrt())

    best = mixture(minimize_scalar(dual, bounds=(0, 1), method="bounded").x)
    expected = half + radius / (best @ gramian @ best).sqrt() * best
    assert weights("cagrad", gramian.tolist(), c=c) == pytest.approx(expected.tolist(), rel=1e-3)


def test_db_mtl_by_hand():
    """Gradients of the log losses have norms 1 / 1 and 2 / 4; both are scaled to norm 1."""
    found = make_balancer("db_mtl", TWO).weights(
        summarize(torch.tensor(SQUARE), torch.tensor([1.0, 4.0]))
    )
    assert found.tolist() == pytest.approx([1.0, 0.5])


def test_gradnorm_by_hand():
    """Norms are 1 and 2, targets 1.5: slopes are -1 / 1.5 and 2 / 1.5; then the sum is scaled to 2.

    The loss of the second task is halved in the second step: the ratios are 1 and .5, and 4/3 and
    2/3 relative to their mean, to the power alpha.
    """
    method = make_balancer("gradnorm", TWO, alpha=1.0, lr=0.03)
    assert method.weights(summarize(torch.tensor(SQUARE))).tolist() == [1, 1]
    updated = torch.tensor([1 + 0.03 / 1.5, 1 - 0.03 * 2 / 1.5]).double()
    first = updated * 2 / updated.sum()
    second = method.weights(summarize(torch.tensor(SQUARE), torch.tensor([1.0, 0.5])))
    assert second.tolist() == pytest.approx(first.tolist())
    lengths = first * torch.tensor([1.0, 2.0])
    targets = lengths.mean() * torch.tensor([4 / 3, 2 / 3])
    assert (lengths - targets).sign().tolist() == [-1, 1]
    updated = first - 0.03 * torch.tensor([-1.0, 2.0]) / lengths.mean()
    third = method.weights(summarize(torch.tensor(SQUARE)))
    assert third.tolist() == pytest.approx((updated * 2 / updated.sum()).tolist())


def test_gradvac_rotates_to_target_cosine():
    """After a step with cosine .8, the target is .4 for beta .5.

    Orthogonal gradients are rotated to this cosine.
    """
    method = make_balancer("gradvac", TWO, beta=0.5)
    method.weights(summarize(torch.tensor([[1.0, 1.6], [1.6, 4.0]])))
    found = method.weights(summarize(torch.tensor(SQUARE)))
    # g1 + a g2 at cosine .4 to g2, of length 2: 2a / (1 + 4a^2)^(1/2) = .4
    share = 0.4 / (1 - 0.4**2) ** 0.5 / 2
    assert found.tolist() == pytest.approx([1 + 4 * share, 1 + share])


def test_gradvac_of_two_tasks_equals_torchjd():
    from torchjd.aggregation import GradVacWeighting

    method, theirs = make_balancer("gradvac", TWO), GradVacWeighting(beta=0.5)
    for number in range(5):
        gramian = random_gramian(number, 2)
        torch.testing.assert_close(
            method.weights(summarize(gramian)), theirs(gramian), rtol=1e-5, atol=1e-7
        )


def random_gramian(seed: int, tasks: int = 3, spread: float = 0.0) -> Tensor:
    """Return the Gramian of random vectors whose norms differ by a factor of up to 10^spread."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(tasks, 4, generator=generator).double()
    lengths = 10 ** (spread * torch.rand(tasks, 1, generator=generator).double())
    return (vectors * lengths) @ (vectors * lengths).T


seeds = st.integers(0, 10_000)


@given(seeds)
def test_mgda_is_convex_and_optimal(seed):
    """KKT: the product of the shortest vector with every gradient is at least its square."""
    gramian = random_gramian(seed, spread=1)
    found = make_balancer("mgda").weights(summarize(gramian))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)
    products = gramian @ found
    assert products.min() >= found @ products - 1e-8 * gramian.diagonal().max()


@pytest.mark.parametrize("scales", [(1.0, 10.0, 0.1), (1e-3, 1.0, 1e3), (1.0, 1.0, 1.0)])
@pytest.mark.parametrize("seed", range(4))
def test_mgda_equals_the_best_of_all_subsets(seed, scales):
    """The shortest vector is that of the affine hull of some of the gradients."""
    factors = torch.tensor(scales).double()
    gramian = factors[:, None] * random_gramian(seed) * factors
    best, best_value = None, float("inf")
    for subset in ([0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]):
        inverse = torch.linalg.inv(gramian[subset][:, subset]).sum(1)
        candidate = torch.zeros(3).double()
        candidate[subset] = inverse / inverse.sum()
        value = float(candidate @ gramian @ candidate)
        if candidate.min() >= 0 and value < best_value:
            best, best_value = candidate, value
    found = make_balancer("mgda").weights(summarize(gramian))
    torch.testing.assert_close(found, best, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 180.0])
def test_mgda_of_parallel_gradients(angle):
    """Equal gradients are one point; opposite gradients of norm 1 and 2 have the sum 0."""
    cosine = 1.0 if angle == 0 else -1.0
    found = torch.tensor(weights("mgda", [[1.0, 2 * cosine], [2 * cosine, 4.0]]))
    assert found.tolist() == pytest.approx([1.0, 0.0] if angle == 0 else [2 / 3, 1 / 3])


def test_mgda_of_identical_gradients():
    found = make_balancer("mgda").weights(summarize(torch.ones(3, 3)))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)


@given(seeds)
def test_nash_mtl_has_the_norm_of_the_square_root_of_the_number_of_tasks(seed):
    """Claim 3.1: w solves G w = 1 / w, so w G w is the number of tasks, at any scale."""
    for scale in (1e-6, 1.0, 1e4):
        gramian = scale * random_gramian(seed)
        for max_norm, expected in ((0.0, 3**0.5), (1.0, 1.0)):
            found = make_balancer("nash_mtl", max_norm=max_norm).weights(summarize(gramian))
            assert float((found @ gramian @ found).sqrt()) == pytest.approx(expected, rel=1e-3)


@given(seeds)
def test_upgrad_and_dual_proj_have_no_conflict(seed):
    gramian = random_gramian(seed, spread=1)
    for name in ("upgrad", "dual_proj"):
        products = gramian @ make_balancer(name).weights(summarize(gramian))
        assert products.min() >= -1e-3 * gramian.diagonal().sum()


@given(seeds)
def test_pcgrad_of_two_tasks_has_no_conflict(seed):
    gramian = random_gramian(seed, tasks=2)
    products = gramian @ make_balancer("pcgrad", TWO).weights(summarize(gramian))
    assert products.min() >= -1e-9


@given(seeds)
def test_imtl_g_has_equal_projections(seed):
    gramian = random_gramian(seed)
    found = make_balancer("imtl_g").weights(summarize(gramian))
    assert abs(float(found.sum())) == pytest.approx(1)
    projections = gramian @ found / gramian.diagonal().sqrt()
    assert projections.min() > 0
    assert projections.tolist() == pytest.approx([float(projections[0])] * 3, rel=1e-4)


@given(seeds)
def test_nash_mtl_and_fairgrad_solve_their_equation(seed):
    gramian = random_gramian(seed)
    for name, options in (("nash_mtl", {"max_norm": 0.0}), ("fairgrad", {"alpha": 1.0})):
        found = make_balancer(name, **options).weights(summarize(gramian))
        gains = (gramian @ found) * found
        assert found.min() > 0
        expected = 1.0 if name == "nash_mtl" else float(gains.mean())
        assert gains.tolist() == pytest.approx([expected] * 3, rel=1e-2)


@given(seeds)
def test_aligned_mtl_of_full_rank_is_mean_of_orthogonal_components(seed):
    gramian = random_gramian(seed)
    found = make_balancer("aligned_mtl").weights(summarize(gramian))
    shortest = torch.linalg.eigvalsh(gramian).min()
    assert float(found @ gramian @ found) == pytest.approx(float(shortest) / 3, rel=1e-6)


@given(seeds)
def test_imtl_g_and_nash_mtl_are_invariant_to_loss_scales(seed):
    gramian, factors = random_gramian(seed), torch.tensor([1e-3, 1.0, 50.0]).double()
    scaled = factors[:, None] * gramian * factors
    for name in ("imtl_g", "nash_mtl"):
        plain, other = (make_balancer(name).weights(summarize(each)) for each in (gramian, scaled))
        direction = torch.nn.functional.normalize(plain, dim=0)
        found = torch.nn.functional.normalize(other * factors, dim=0)
        torch.testing.assert_close(found, direction, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GRAMIAN_METHODS)
def test_weights_do_not_depend_on_size_of_gradients(name):
    """Gradients of a mean over pixels are so small that fixed thresholds would treat them as 0."""
    gramian = random_gramian(3, 2)
    options = {"max_norm": 0.0} if name == "nash_mtl" else {}
    plain, small = (
        make_balancer(name, TWO, **options).weights(summarize(scale * gramian))
        for scale in (1.0, 1e-12)
    )
    plain, small = plain / plain.sum(), small / small.sum()
    torch.testing.assert_close(plain, small, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", GRAMIAN_METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_order_of_tasks_does_not_matter(name, seed):
    """Two tasks for methods with a random order; several steps for methods with state."""
    has_random_order = name in ("pcgrad", "gradvac")
    order = [1, 0] if has_random_order else [2, 0, 1]
    names = TASK_NAMES[: len(order)]
    plain, permuted = make_balancer(name, names), make_balancer(name, names)
    losses = torch.tensor([1.0, 2.0, 5.0])[: len(order)]
    for number in range(3):
        gramian, values = random_gramian(seed + 10 * number, len(order)), losses / (1 + number)
        expected = plain.weights(summarize(gramian, values, number))
        found = permuted.weights(summarize(gramian[order][:, order], values[order], number))
        torch.testing.assert_close(found, expected[order], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mgda", {"tolerance": 0.0}, "mgda.tolerance: Input should be greater than 0"),
        ("cagrad", {"c": -1.0}, "cagrad.c: Input should be greater than or equal to 0"),
        ("fairgrad", {"alpha": -1.0}, "fairgrad.alpha: Input should be greater than or equal to 0"),
        ("nash_mtl", {"max_norm": -1.0}, "nash_mtl.max_norm: Input should be greater than"),
        ("gradvac", {"beta": 2.0}, "gradvac.beta: Input should be less than or equal to 1"),
        ("gradnorm", {"lr": 0.0}, "gradnorm.lr: Input should be greater than 0"),
        ("graddrop", {"leak": 2.0}, "graddrop.leak: Input should be less than or equal to 1"),
        ("upgrad", {"weights": {"edge": 1.0}}, "no task 'edge'"),
    ],
)
def test_options_out_of_range_are_rejected(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_balancer(name, **options)


@pytest.mark.parametrize("name", TORCHJD_METHODS)
def test_missing_extra_is_named_in_error(monkeypatch, name):
    monkeypatch.setitem(__import__("sys").modules, "torchjd.aggregation", None)
    with pytest.raises(ConfigError, match=r'pip install "densemtl\[balancing\]"'):
        make_balancer(name)


@pytest.mark.parametrize("name", [*NATIVE_METHODS, "graddrop"])
def test_native_methods_need_no_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchjd.aggregation", None)
    make_balancer(name)

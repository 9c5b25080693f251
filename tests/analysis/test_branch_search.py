"""Search of trees, and the affinities that it minimizes the dissimilarity of."""

from __future__ import annotations

from itertools import pairwise, product

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from densemtl.analysis.branch_search import (
    BranchCosts,
    compute_error_affinity,
    find_tree,
    list_trees,
)
from densemtl.analysis.representation_similarity import compute_affinity, compute_dissimilarities
from densemtl.errors import ConfigError, DataError

TASKS = ["a", "b", "c"]
RESNET50 = BranchCosts(9_536, (215_808, 1_219_584, 7_098_368, 14_964_736))


def make_affinities(seed: int, tasks: int = 3, stages: int = 4) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    matrices = []
    for _ in range(stages):
        values = rng.uniform(0, 1, (tasks, tasks))
        matrices.append((values + values.T) / 2 * (1 - np.eye(tasks)) + np.eye(tasks))
    return matrices


@pytest.mark.parametrize(
    ("tasks", "counts"),
    [
        (1, [1, 1, 1]),
        (2, [2, 3, 4, 5]),
        (3, [5, 12, 22, 35, 51]),
        (4, [15, 60, 154, 315, 561]),
        (5, [52, 358, 1304, 3455]),
    ],
)
def test_number_of_trees(tasks: int, counts: list[int]) -> None:
    for stages, count in enumerate(counts, start=1):
        trees = list(list_trees(tasks, stages))
        assert len(trees) == len(set(trees)) == count


def test_trees_divide_the_groups_of_the_stage_before() -> None:
    for tree in list_trees(4, 3):
        for above, below in zip(((tuple(range(4)),), *tree), tree, strict=False):
            assert sorted(index for group in below for index in group) == [0, 1, 2, 3]
            assert all(any(set(g) <= set(parent) for parent in above) for g in below)


def test_budget_of_one_is_hard_sharing_and_a_large_one_separates_all_tasks() -> None:
    for seed in range(5):
        affinities = make_affinities(seed)
        assert find_tree(TASKS, affinities, RESNET50, 1).groups == ((tuple(TASKS),),) * 4
        separate = find_tree(TASKS, affinities, RESNET50, 3)
        assert separate.groups == ((("a",), ("b",), ("c",)),) * 4
        assert separate.dissimilarity == 0
        assert separate.cost == pytest.approx(3 - 2 * 9_536 / 23_508_032)


@pytest.mark.parametrize("budget", [1.0, 1.3, 1.7, 2.0, 2.4])
def test_tree_is_the_best_of_an_independent_search(budget: float) -> None:
    """Labels of groups for each task and stage; tasks that are separated stay separated."""
    affinities = make_affinities(1, stages=3)
    costs = BranchCosts(1.0, (1.0, 2.0, 4.0))
    best = (float("inf"), float("inf"))
    for labels in product(product(range(3), repeat=3), repeat=3):
        if any(
            low[i] == low[j] and high[i] != high[j]
            for high, low in pairwise(labels)
            for i, j in product(range(3), repeat=2)
        ):
            continue
        total, dissimilarity = 1.0, 0.0
        for stage, names in enumerate(labels):
            groups = set(names)
            total += costs.stages[stage] * len(groups)
            worst = [
                max(
                    1 - affinities[stage][i, j]
                    for i, j in product(range(3), repeat=2)
                    if names[i] == names[j] == group
                )
                for group in groups
            ]
            dissimilarity += sum(worst) / len(worst)
        if total / 8 <= budget + 1e-9:
            best = min(best, (round(dissimilarity, 9), total / 8))
    found = find_tree(TASKS, affinities, costs, budget)
    assert (found.dissimilarity, found.cost) == pytest.approx(best)
    assert found.cost <= budget


def test_equal_affinities_give_the_cheapest_and_then_the_first_tree() -> None:
    same = [np.ones((3, 3))] * 2
    assert find_tree(TASKS, same, BranchCosts(0, (1, 1)), 9).groups == ((tuple(TASKS),),) * 2
    half = [0.5 * np.ones((3, 3)) + 0.5 * np.eye(3)] * 2
    costs = BranchCosts(0, (1, 1))
    first = find_tree(TASKS, half, costs, 1.5)
    assert first == find_tree(TASKS, half, costs, 1.5)
    assert first.groups == ((("a", "b", "c"),), (("a",), ("b", "c")))


def test_too_many_tasks_and_small_budgets_are_errors() -> None:
    with pytest.raises(ConfigError, match="more than 6 tasks"):
        find_tree("abcdefg", make_affinities(0, tasks=7), RESNET50, 2)
    with pytest.raises(ConfigError, match=r"--budget 0.5: must be at least 1"):
        find_tree(TASKS, make_affinities(0), RESNET50, 0.5)


def test_affinity_equals_scipy() -> None:
    torch.manual_seed(0)
    vectors = [torch.randn(12, 30) for _ in range(3)]
    vectors[1] = vectors[0] + 0.5 * torch.randn(12, 30)
    vectors[2][1] = vectors[2][0]  # ties
    matrices = [compute_dissimilarities(each) for each in vectors]
    for each, matrix in zip(vectors, matrices, strict=True):
        expected = 1 - pearsonr(each[2].numpy(), each[5].numpy()).statistic
        assert matrix[2, 5].item() == pytest.approx(expected, abs=1e-5)
    pairs = [matrix[np.triu_indices(12, 1)].numpy() for matrix in matrices]
    affinity = compute_affinity(matrices)
    for i, j in product(range(3), repeat=2):
        assert affinity[i, j] == pytest.approx(spearmanr(pairs[i], pairs[j]).statistic, abs=1e-6)
    assert affinity[0, 1] > affinity[0, 2] + 0.2


def test_error_affinity_ignores_images_without_labels() -> None:
    losses = {
        "a": np.array([1.0, 1.0, 5.0, np.nan]),
        "b": np.array([1.0, 9.0, 9.0, 0.0]),
    }
    affinity = compute_error_affinity(losses)
    assert affinity[0, 1] == pytest.approx(2 / 3)
    assert np.array_equal(affinity, affinity.T)


@pytest.mark.parametrize("other", [[np.nan, np.nan, 1.0], [np.nan] * 3])
def test_tasks_without_common_images_cannot_be_compared(other: list[float]) -> None:
    losses = {"a": np.array([1.0, 2.0, np.nan]), "b": np.array(other)}
    with pytest.raises(DataError, match=r"no image has labels of both [ab] and b"):
        compute_error_affinity(losses)


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_networks_without_information_cannot_be_compared(value: float) -> None:
    constant = torch.full((5, 5), value)
    with pytest.raises(DataError, match="same features for all images, or features that are not"):
        compute_affinity([torch.rand(5, 5), constant])

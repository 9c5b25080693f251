"""Search of the tree along which tasks share the stages of a backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from densemtl.errors import ConfigError, DataError

Affinities = Sequence[NDArray[np.float64]]
"""One symmetric matrix (T, T) per stage; 1 for tasks with equal representations."""

Partition = tuple[tuple[int, ...], ...]
"""Groups of indices of tasks, sorted."""

MAX_TASKS = 6
"""Maximum number of tasks, as the number of trees grows very fast."""

TOLERANCE = 1e-9
"""Costs and budgets that differ by less are equal."""


@dataclass(frozen=True)
class BranchCosts:
    """Cost of the layers of a backbone, such as their numbers of parameters.

    Attributes:
        stem: cost of everything that all tasks always share.
        stages: cost of one copy of each stage.
    """

    stem: float
    stages: tuple[float, ...]

    def compute_total(self, partitions: Sequence[Partition]) -> float:
        """Return the cost of a tree as a multiple of the cost of one backbone.

        Args:
            partitions: groups of each stage.

        Returns:
            1 if all tasks share all stages.
        """
        copies = sum(
            cost * len(groups) for cost, groups in zip(self.stages, partitions, strict=True)
        )
        return (self.stem + copies) / (self.stem + sum(self.stages))


@dataclass(frozen=True)
class BranchTree:
    """Tree that the search found.

    Attributes:
        groups: names of the tasks of each group of each stage.
        dissimilarity: sum over stages of the mean over groups of the largest dissimilarity of two
            tasks of the group.
        cost: multiple of the cost of one backbone.
    """

    groups: tuple[tuple[tuple[str, ...], ...], ...]
    dissimilarity: float
    cost: float


def find_tree(
    tasks: Sequence[str], affinities: Affinities, costs: BranchCosts, budget: float
) -> BranchTree:
    """Find the tree of the smallest dissimilarity within a budget by exhaustive search.

    The dissimilarity of two tasks at a stage is 1 minus their affinity. The cost of a stage is the
    mean over its groups of the largest dissimilarity inside the group, 0 for single tasks:
    Vandenhende et al., "Branched Multi-Task Networks: Deciding What Layers To Share", BMVC 2020,
    section 3.2. Among equal trees, the cheapest one is chosen, and then the first in alphabetical
    order of the groups.

    Args:
        tasks: names of the T tasks, in the order of rows and columns.
        affinities: affinity of each pair of tasks at each stage.
        costs: cost of the layers of the backbone.
        budget: maximum cost of the tree as a multiple of one backbone, at least 1.

    Returns:
        The tree.

    Raises:
        ConfigError: if there are too many tasks, or the budget is below 1.

    Example:
        >>> similar, different = np.full((2, 2), 0.9), np.full((2, 2), 0.2)
        >>> costs = BranchCosts(stem=0, stages=(1, 1))
        >>> find_tree(["depth", "edge"], [similar, different], costs, budget=1.5).groups
        ((('depth', 'edge'),), (('depth',), ('edge',)))
    """
    if len(tasks) > MAX_TASKS:
        raise ConfigError(f"trees of more than {MAX_TASKS} tasks cannot be searched: {len(tasks)}")
    if budget < 1:
        raise ConfigError(f"--budget {budget:g}: must be at least 1, the cost of one backbone")
    best: tuple[float, float, tuple[Partition, ...]] | None = None
    for partitions in list_trees(len(tasks), len(affinities)):
        cost = costs.compute_total(partitions)
        if cost > budget + TOLERANCE:
            continue
        found = (
            round(compute_dissimilarity(partitions, affinities), 9),
            round(cost, 9),
            partitions,
        )
        best = found if best is None else min(best, found)
    assert best is not None  # one group at every stage costs 1
    dissimilarity, cost, partitions = best
    groups = tuple(
        tuple(tuple(tasks[index] for index in group) for group in groups) for groups in partitions
    )
    return BranchTree(groups, dissimilarity, cost)


def compute_dissimilarity(partitions: Sequence[Partition], affinities: Affinities) -> float:
    """Return the sum over stages of the mean largest dissimilarity of the groups of a tree."""
    total = 0.0
    for groups, affinity in zip(partitions, affinities, strict=True):
        dissimilarity = 1 - affinity
        np.fill_diagonal(dissimilarity, 0)
        total += float(np.mean([dissimilarity[np.ix_(group, group)].max() for group in groups]))
    return total


def list_trees(num_tasks: int, num_stages: int) -> Iterator[tuple[Partition, ...]]:
    """Yield all trees: sequences of partitions, each of which divides the groups of the one before.

    Args:
        num_tasks: number of tasks.
        num_stages: number of stages.

    Yields:
        The groups of each stage. The number of trees of T tasks and S stages is S + 1 for T = 2;
        5, 12, 22, 35 for T = 3; 15, 60, 154, 315 for T = 4.

    Example:
        >>> sum(1 for _ in list_trees(num_tasks=3, num_stages=2))
        12
    """
    yield from _extend((tuple(range(num_tasks)),), num_stages)


def _extend(above: Partition, num_stages: int) -> Iterator[tuple[Partition, ...]]:
    if num_stages == 0:
        yield ()
        return
    for partition in _list_refinements(above):
        for below in _extend(partition, num_stages - 1):
            yield (partition, *below)


def _list_refinements(partition: Partition) -> Iterator[Partition]:
    """Yield all partitions that divide the groups of a partition."""
    if not partition:
        yield ()
        return
    first, *others = partition
    for rest in _list_refinements(tuple(others)):
        for divided in _list_partitions(first):
            yield tuple(sorted((*divided, *rest)))


def _list_partitions(members: Sequence[int]) -> Iterator[Partition]:
    """Yield all partitions of a group."""
    if not members:
        yield ()
        return
    first, *others = members
    for partition in _list_partitions(others):
        yield ((first,), *partition)
        for index, group in enumerate(partition):
            yield (*partition[:index], (first, *group), *partition[index + 1 :])


def compute_error_affinity(losses: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """Compute how often two tasks find the same images difficult.

    An image is difficult for a task if its loss is above the mean over the images. The affinity is
    the share of images on which both tasks agree: Lu et al., "Fully-adaptive Feature Sharing in
    Multi-Task Networks", CVPR 2017, section 3.2.

    Args:
        losses: {task: loss of each image, shape (N,)}; NaN for images without labels.

    Returns:
        Affinities (T, T) in [0, 1].

    Raises:
        DataError: if no image has labels of both tasks of a pair.

    Example:
        >>> compute_error_affinity({"a": np.array([1.0, 2, 9]), "b": np.array([3.0, 7, 9])})
        array([[1.        , 0.66666667],
               [0.66666667, 1.        ]])
    """
    values, names = np.stack(list(losses.values())), list(losses)
    known = ~np.isnan(values)
    both = known[:, None] & known[None]
    counts = both.sum(-1)
    for row, column in np.argwhere(counts == 0):
        raise DataError(
            f"no image has labels of both {names[row]} and {names[column]}, so that these tasks"
            " cannot be compared; pass one run per task"
        )
    difficult = values > np.nanmean(values, axis=1, keepdims=True)
    affinity: NDArray[np.float64] = ((difficult[:, None] == difficult[None]) & both).sum(
        -1
    ) / counts
    return affinity

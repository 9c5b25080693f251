"""Largest one-to-one matchings in a bipartite graph, by many augmenting paths at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order

from densemtl.metrics.boundary.reach import Graph, Ints

FREE = -1


@dataclass
class Pairs:
    """A matching of N found with M true pixels.

    Attributes:
        true_of: N, the true pixel of each found one, or FREE.
        found_of: M, the reverse.
    """

    true_of: Ints
    found_of: Ints

    @property
    def saturated(self) -> bool:
        """Whether one side is used up, so that no matching is larger."""
        return bool((self.true_of != FREE).all() or (self.found_of != FREE).all())

    def join(self, found: NDArray[np.integer], true: NDArray[np.integer]) -> None:
        """Match each with each."""
        self.true_of[found], self.found_of[true] = true, found


def pair_greedily(graph: Graph, pairs: Pairs) -> None:
    """Match free pixels until none has a free candidate.

    In every round each asks its first free candidate, which takes the first that asks.
    """
    sources, targets = graph.sources, graph.targets
    while True:
        open_ = (pairs.true_of[sources] == FREE) & (pairs.found_of[targets] == FREE)
        sources, targets = sources[open_], targets[open_]
        if not len(sources):
            return
        asks = np.flatnonzero(np.diff(sources, prepend=FREE))
        asked, wins = np.unique(targets[asks], return_index=True)
        pairs.join(sources[asks][wins], asked)


def enlarge(graph: Graph, pairs: Pairs, patience: float = 0.0) -> None:
    """Make the matching as large as any, in place (Berge 1957; Hopcroft and Karp 1973).

    Each phase searches shortest alternating paths from all free found pixels at once. They form
    trees without common pixels, and every tree that reaches free true pixels gives one path to
    augment. A phase that reaches none proves that the matching is of largest size.

    Args:
        graph: who may be matched with whom.
        pairs: any matching; its pairs need not be in the graph.
        patience: stop after a phase that augments less than this share of what might be; 0 goes
            on to the end.
    """
    while not pairs.saturated:
        free = min(np.count_nonzero(side == FREE) for side in (pairs.true_of, pairs.found_of))
        gained = _augment(pairs, _search(graph, pairs))
        if gained <= patience * free:
            return


def _search(graph: Graph, pairs: Pairs) -> Ints:
    """Forest of alternating paths: the found pixel before each of N found and M true pixels.

    Found pixel i leads to j if a candidate of i is matched with j, and to a candidate itself if
    that is free. A root's predecessor is N + M, that of what is not reached is negative.
    """
    found, true = len(pairs.true_of), len(pairs.found_of)
    roots = np.flatnonzero(pairs.true_of == FREE)
    itself = np.arange(found, found + true, dtype=np.int32)
    leads_to = np.where(pairs.found_of == FREE, itself, pairs.found_of)
    heads = np.concatenate([leads_to[graph.targets], roots], dtype=np.int32)
    end = graph.starts[-1]
    starts = np.concatenate([graph.starts, np.full(true, end), [end + len(roots)]], dtype=np.int32)
    size = found + true + 1
    weights = np.broadcast_to(1.0, len(heads))
    matrix = csr_array((weights, heads, starts), shape=(size, size))
    return np.asarray(breadth_first_order(matrix, size - 1)[1][:-1])


def _augment(pairs: Pairs, before: Ints) -> int:
    """Turn over one path of every tree that has a free true pixel; returns how many."""
    found = len(pairs.true_of)
    ends = np.flatnonzero(before[found:] >= 0)
    _, chosen = np.unique(_roots(before[:found])[before[found + ends]], return_index=True)
    true = ends[chosen]
    here = before[found + true]
    while len(here):
        given_up = pairs.true_of[here]
        pairs.join(here, true)
        goes_on = given_up != FREE
        true, here = given_up[goes_on], before[here[goes_on]]
    return len(chosen)


def _roots(before: Ints) -> Ints:
    """The root of the tree in which each of N found pixels lies; of those in none, themselves."""
    itself = np.arange(len(before), dtype=np.int32)
    root = np.where((before >= 0) & (before < len(before)), before, itself)
    while not np.array_equal(root, further := root[root]):
        root = further
    return np.asarray(root)

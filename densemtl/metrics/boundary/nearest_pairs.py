"""Minimum-distance matching among the maximum ones, which defines which pixels are matched.

Maximum matchings have the same size, but leave different predicted pixels out. That matters if the
matched pixels of several annotators are united.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from densemtl.metrics.boundary.disc_dilation import Disc, IntArray
from densemtl.metrics.boundary.match_state import UNMATCHED, MatchState
from densemtl.ops.bitmap import Mask

PART_SIZE = 64
"""Number of true pixels that are matched together, unless a connected component is larger."""


def select_nearest(disc: Disc, match_state: MatchState, free: IntArray) -> Mask:
    """Select the predicted pixels of the maximum matching with the smallest sum of distances.

    A predicted pixel that an alternating path connects with an unmatched one can be replaced by it.
    These pixels and the true pixels within their reach form one part of the Dulmage-Mendelsohn
    decomposition of the graph: every maximum matching matches these true pixels with these
    predicted pixels, and all other predicted pixels as well. Only this part is solved again, and
    the result depends neither on the given matching nor on earlier maps.

    Args:
        disc: offsets within the matching distance.
        match_state: a maximum matching of N pixels.
        free: indices of the unmatched predicted pixels that have a true pixel within reach.

    Returns:
        Mask of the matched predicted pixels, shape (N,).
    """
    matched = match_state.matched_predicted
    predicted = np.sort(_find_replaceable(disc, match_state, free))
    true = np.sort(match_state.true_of_predicted[predicted[matched[predicted]]])
    matched[predicted] = False
    matched[predicted[_assign(disc, true, predicted, len(matched))]] = True
    return matched


def _find_replaceable(disc: Disc, match_state: MatchState, free: IntArray) -> IntArray:
    """Return the predicted pixels that at least one maximum matching leaves out."""
    unseen = match_state.predicted_of_true != UNMATCHED
    found = [free]
    while len(found[-1]):
        near = (found[-1][:, None] + disc.offsets).ravel()
        true = np.unique(near[unseen[near]])
        unseen[true] = False
        found.append(match_state.predicted_of_true[true])
    return np.concatenate(found)


def _assign(disc: Disc, true: IntArray, predicted: IntArray, size: int) -> IntArray:
    """Match all of the true pixels with the smallest sum of distances.

    Returns:
        Positions of the matched pixels in `predicted`.
    """
    from scipy.sparse import csr_array  # local imports, because one annotator does not need them
    from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

    column = np.full(size, -1, np.int32)
    column[predicted] = np.arange(len(predicted))
    columns = column[true[:, None] + disc.offsets]
    rows, offsets = np.nonzero(columns >= 0)
    columns, count = columns[rows, offsets], len(true)
    nodes = count + len(predicted)
    edges = csr_array((np.ones(len(rows)), (rows, count + columns)), (nodes, nodes))
    _, labels = connected_components(edges, directed=False)
    row_order, column_order = (
        np.argsort(part, kind="stable") for part in (labels[:count], labels[count:])
    )
    weights = 1 + disc.distances[offsets]  # SciPy takes a weight of 0 as no edge
    graph = csr_array((weights, (rows, columns)), (count, len(predicted)))
    graph = graph[row_order][:, column_order]
    found = [true[:0]]
    for rows_of_part, start, stop in _split(
        labels[:count][row_order], labels[count:][column_order]
    ):
        part = graph[rows_of_part, start:stop]
        found.append(column_order[start + min_weight_full_bipartite_matching(part)[1]])
    return np.concatenate(found)


def _split(row_labels: IntArray, column_labels: IntArray) -> Iterator[tuple[slice, int, int]]:
    """Split sorted component labels into parts, as the solver is quadratic in the number of rows.

    Yields:
        The rows, and the first and the last column + 1, of some whole components.
    """
    start = 0
    while start < len(row_labels):
        last = row_labels[min(start + PART_SIZE, len(row_labels)) - 1]
        stop = int(np.searchsorted(row_labels, last, "right"))
        first = np.searchsorted(column_labels, row_labels[start])
        yield slice(start, stop), int(first), int(np.searchsorted(column_labels, last, "right"))
        start = stop

"""Thinning of binary maps to lines with a width of one pixel, 64 pixels at a time."""

from __future__ import annotations

import numpy as np

from densemtl.ops.bitmap import (
    Mask,
    PackedMask,
    pack,
    pad_to_words,
    shift_left,
    shift_right,
    unpack,
)


def thin(mask: Mask) -> Mask:
    """Return the skeleton of a binary map.

    Connected components stay connected (8-neighborhood), and none vanishes. Pixels outside of the
    image are empty.

    Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 1989, algorithm A1, as
    surveyed by Lam, Lee and Suen, PAMI 1992: two alternating passes remove pixels from the east and
    south, and from the west and north sides, until nothing changes.

    Args:
        mask: binary map, shape (H, W).

    Returns:
        The skeleton, shape (H, W).
    """
    words = pack(pad_to_words(mask, 1))
    while True:
        before = words.copy()
        for peel_west in (False, True):
            words[1:-1] ^= _thin_pass(words, peel_west)
        if np.array_equal(before, words):
            return unpack(words)[1:-1, : mask.shape[1]].copy()


def _thin_pass(image: PackedMask, peel_west: bool) -> PackedMask:
    """Return the pixels that one pass removes from a padded map.

    Neighbors are numbered counterclockwise from the east, and a pair of neighbors is set if one of
    them is. A pixel is removed if its neighbors form one run (`single`), if at least two of the
    four pairs are set in both pairings (`two`), unless all pairs are set in both pairings (`four`),
    and if it is on the side of this pass.
    """
    east, west = shift_left(image), shift_right(image)
    n1, n2, n3, n4 = east[1:-1], east[:-2], image[:-2], west[:-2]
    n5, n6, n7, n8 = west[1:-1], west[2:], image[2:], east[2:]
    a, b, c, d = n2 | n3, n4 | n5, n6 | n7, n8 | n1
    e, f, g, h = n1 | n2, n3 | n4, n5 | n6, n7 | n8
    single = _exactly_one(a & ~n1, b & ~n3, c & ~n5, d & ~n7)
    two = _at_least_two(a, b, c, d) & _at_least_two(e, f, g, h)
    four = a & b & c & d & e & f & g & h
    stays = n5 & (c | ~n4) if peel_west else n1 & (a | ~n8)
    return np.asarray(image[1:-1] & single & two & ~(four | stays))


def _exactly_one(a: PackedMask, b: PackedMask, c: PackedMask, d: PackedMask) -> PackedMask:
    """Return where exactly one is set: an odd number, but not three."""
    return np.asarray((a ^ b ^ c ^ d) & ~((a & b) | (c & d)))


def _at_least_two(a: PackedMask, b: PackedMask, c: PackedMask, d: PackedMask) -> PackedMask:
    """Return where at least two are set."""
    return np.asarray((a & b) | (c & d) | ((a | b) & (c | d)))

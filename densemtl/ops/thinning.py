"""Thinning of binary maps to lines of one pixel, on 64 pixels at a time."""

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
    """HxW map -> its skeleton; pieces stay connected as they were (8 neighbours), none vanishes.

    Guo and Hall, "Parallel thinning with two-subiteration algorithms", CACM 1989, algorithm A1
    as surveyed by Lam, Lee and Suen, PAMI 1992: two passes in turn peel the east and south, then
    the west and north sides until nothing changes. Outside the image there is nothing.
    """
    words = pack(pad_to_words(mask, 1))
    while True:
        before = words.copy()
        for peels_west in (False, True):
            words[1:-1] ^= _thin_pass(words, peels_west)
        if np.array_equal(before, words):
            return unpack(words)[1:-1, : mask.shape[1]].copy()


def _thin_pass(image: PackedMask, peel_west: bool) -> PackedMask:
    """The pixels that one pass takes away, of an image within an empty frame.

    Neighbours are counted from the east against the clock. A pixel goes if its neighbours form
    one run (`single`), if of the four pairs of neighbours, in either pairing, at least two are set
    (`two`) but in one pairing not all (`four`), and if it lies on the side of this pass.
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
    """An odd number, but not three."""
    return np.asarray((a ^ b ^ c ^ d) & ~((a & b) | (c & d)))


def _at_least_two(a: PackedMask, b: PackedMask, c: PackedMask, d: PackedMask) -> PackedMask:
    return np.asarray((a & b) | (c & d) | ((a | b) & (c | d)))

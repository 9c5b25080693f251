"""Binary maps as words of 64 pixels, so that one instruction processes 64 pixels.

A map is padded, and then stored row by row with one bit per pixel; the leftmost pixel is the lowest
bit. The padding on the right separates the rows, so that all of them can be shifted horizontally as
one array.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64

Mask = NDArray[np.bool_]
"""Binary map."""
PackedMask = NDArray[np.uint64]
"""Binary map with 64 pixels per word."""


def pad_to_words(mask: Mask, margin: int) -> Mask:
    """Pad a map with `margin` empty rows above and below and at least as many columns on the right.

    Args:
        mask: binary map, shape (H, W).
        margin: number of rows, and minimum number of columns.

    Returns:
        The padded map, shape (H + 2 * margin, S) with S a multiple of 64.
    """
    height, width = mask.shape
    stride = -(-(width + margin) // WORD_BITS) * WORD_BITS
    frame = np.zeros((height + 2 * margin, stride), bool)
    frame[margin : margin + height, :width] = mask
    return frame


def pack(mask: Mask) -> PackedMask:
    """Pack a map into words.

    Args:
        mask: binary map, shape (..., S) with S a multiple of 64.

    Returns:
        The words, shape (..., S / 64).
    """
    octets = np.packbits(mask, axis=-1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(packed: PackedMask) -> Mask:
    """Unpack words into a map.

    Args:
        packed: words, shape (..., S).

    Returns:
        The binary map, shape (..., 64 * S).
    """
    octets = packed.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little").view(bool)


def nonzero(packed: PackedMask) -> NDArray[np.integer]:
    """Return the indices of the set pixels of the flattened map; fast if few words are nonzero.

    Args:
        packed: words of any shape.

    Returns:
        The indices in ascending order, shape (N,).
    """
    filled = np.flatnonzero(packed)
    word, bit = np.divmod(np.flatnonzero(unpack(packed.ravel()[filled])), WORD_BITS)
    return np.asarray(filled[word] * WORD_BITS + bit)


def shift_left(packed: PackedMask) -> PackedMask:
    """Shift a map to the left by one pixel: each pixel gets the value of its right neighbor.

    Args:
        packed: words, shape (H, S).

    Returns:
        The shifted map, same shape.
    """
    flat = packed.ravel()
    moved = flat >> np.uint64(1)
    moved[:-1] |= flat[1:] << np.uint64(WORD_BITS - 1)
    return moved.reshape(packed.shape)


def shift_right(packed: PackedMask) -> PackedMask:
    """Shift a map to the right by one pixel: each pixel gets the value of its left neighbor.

    Args:
        packed: words, shape (H, S).

    Returns:
        The shifted map, same shape.
    """
    flat = packed.ravel()
    moved = flat << np.uint64(1)
    moved[1:] |= flat[:-1] >> np.uint64(WORD_BITS - 1)
    return moved.reshape(packed.shape)


def dilate_horizontal(packed: PackedMask, steps: int) -> PackedMask:
    """Set each pixel that is set or has a set pixel at a distance of `steps` to its left or right.

    Args:
        packed: words, shape (H, S).
        steps: distance in pixels, 1 to 63 and at most the margin of the map.

    Returns:
        The result, same shape.
    """
    flat, over, back = packed.ravel(), np.uint64(steps), np.uint64(WORD_BITS - steps)
    result = flat | (flat << over)
    result |= flat >> over
    result[1:] |= flat[:-1] >> back
    result[:-1] |= flat[1:] << back
    return result.reshape(packed.shape)

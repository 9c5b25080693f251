"""Binary maps as words of 64 pixels, so that one instruction works on 64 at a time.

A map lies in an empty frame, row after row, one bit a pixel, the leftmost lowest. The frame's right
columns keep rows apart, so that all of them can be moved sideways as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64

Mask = NDArray[np.bool_]
PackedMask = NDArray[np.uint64]


def pad_to_words(mask: Mask, margin: int) -> Mask:
    """HxW -> (H + 2 margin) x S: `margin` empty rows on either side, as many columns or more.

    All empty columns are on the right; S is a multiple of 64.
    """
    height, width = mask.shape
    stride = -(-(width + margin) // WORD_BITS) * WORD_BITS
    frame = np.zeros((height + 2 * margin, stride), bool)
    frame[margin : margin + height, :width] = mask
    return frame


def pack(mask: Mask) -> PackedMask:
    """...xS -> ...x(S / 64)."""
    octets = np.packbits(mask, axis=-1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(packed: PackedMask) -> Mask:
    """...xS -> ...x(64 S)."""
    octets = packed.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little").view(bool)


def nonzero(packed: PackedMask) -> NDArray[np.integer]:
    """Where the flattened map is set, ascending; of few words that are set, fast."""
    filled = np.flatnonzero(packed)
    word, bit = np.divmod(np.flatnonzero(unpack(packed.ravel()[filled])), WORD_BITS)
    return np.asarray(filled[word] * WORD_BITS + bit)


def shift_left(packed: PackedMask) -> PackedMask:
    """Each pixel's right neighbour in its place."""
    flat = packed.ravel()
    moved = flat >> np.uint64(1)
    moved[:-1] |= flat[1:] << np.uint64(WORD_BITS - 1)
    return moved.reshape(packed.shape)


def shift_right(packed: PackedMask) -> PackedMask:
    """Each pixel's left neighbour in its place."""
    flat = packed.ravel()
    moved = flat << np.uint64(1)
    moved[1:] |= flat[:-1] >> np.uint64(WORD_BITS - 1)
    return moved.reshape(packed.shape)


def dilate_horizontal(packed: PackedMask, steps: int) -> PackedMask:
    """Where there is a pixel or one `steps` to its left or right, 1 to 63, within the margin."""
    flat, over, back = packed.ravel(), np.uint64(steps), np.uint64(WORD_BITS - steps)
    result = flat | (flat << over)
    result |= flat >> over
    result[1:] |= flat[:-1] >> back
    result[:-1] |= flat[1:] << back
    return result.reshape(packed.shape)

"""Binary maps as words of 64 pixels, so that one instruction works on 64 at a time.

A map lies in an empty frame, row after row, one bit a pixel, the leftmost lowest. The frame's right
columns keep rows apart, so that all of them can be moved sideways as one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WORD = 64

Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]


def framed(mask: Mask, margin: int) -> Mask:
    """HxW -> (H + 2 margin) x S: `margin` empty rows on either side, as many columns or more.

    All empty columns are on the right; S is a multiple of 64.
    """
    height, width = mask.shape
    stride = -(-(width + margin) // WORD) * WORD
    frame = np.zeros((height + 2 * margin, stride), bool)
    frame[margin : margin + height, :width] = mask
    return frame


def pack(frame: Mask) -> Words:
    """...xS -> ...x(S / 64)."""
    octets = np.packbits(frame, axis=-1, bitorder="little")
    return octets.view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words) -> Mask:
    """...xS -> ...x(64 S)."""
    octets = words.astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little").view(bool)


def indices(words: Words) -> NDArray[np.integer]:
    """Where the flattened map is set, ascending; of few words that are set, fast."""
    filled = np.flatnonzero(words)
    word, bit = np.divmod(np.flatnonzero(unpack(words.ravel()[filled])), WORD)
    return np.asarray(filled[word] * WORD + bit)


def from_right(words: Words) -> Words:
    """Each pixel's right neighbour in its place."""
    flat = words.ravel()
    moved = flat >> np.uint64(1)
    moved[:-1] |= flat[1:] << np.uint64(WORD - 1)
    return moved.reshape(words.shape)


def from_left(words: Words) -> Words:
    """Each pixel's left neighbour in its place."""
    flat = words.ravel()
    moved = flat << np.uint64(1)
    moved[1:] |= flat[:-1] >> np.uint64(WORD - 1)
    return moved.reshape(words.shape)


def spread(words: Words, steps: int) -> Words:
    """Where there is a pixel or one `steps` to its left or right, 1 to 63, within the margin."""
    flat, over, back = words.ravel(), np.uint64(steps), np.uint64(WORD - steps)
    result = flat | (flat << over)
    result |= flat >> over
    result[1:] |= flat[:-1] >> back
    result[:-1] |= flat[1:] << back
    return result.reshape(words.shape)

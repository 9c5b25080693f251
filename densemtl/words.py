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


def from_right(words: Words, steps: int = 1) -> Words:
    """Each pixel's `steps`th to the right in its place, 1 to 63 and at most the frame's margin."""
    flat = words.ravel()
    moved = flat >> np.uint64(steps)
    moved[:-1] |= flat[1:] << np.uint64(WORD - steps)
    return moved.reshape(words.shape)


def from_left(words: Words, steps: int = 1) -> Words:
    """Each pixel's `steps`th to the left in its place."""
    flat = words.ravel()
    moved = flat << np.uint64(steps)
    moved[1:] |= flat[:-1] >> np.uint64(WORD - steps)
    return moved.reshape(words.shape)

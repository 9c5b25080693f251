"""Check of the structure of MATLAB files v5, since scipy crashes on some malformed ones."""

from __future__ import annotations

import math
import struct

_MATRIX = 14
_DATA_TYPES = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_CELL, _STRUCT, _OBJECT, _SPARSE, _NUMERIC = 1, 2, 3, 5, range(4, 16)
_COMPLEX_FLAG = 0x800
_MAX_ELEMENTS = 2**20

Element = tuple[int, memoryview]
"""(type, content) of an element of a matrix."""


def check_matrix(data: memoryview, byte_order: str, depth: int = 0) -> None:
    """Check the elements of a matrix, and of the matrices in it.

    Args:
        data: content of the matrix, without its tag.
        byte_order: "<" or ">".
        depth: number of matrices around it.

    Raises:
        ValueError: if an element is missing, too long or of a wrong type.
    """
    if not data:  # an empty value in a cell array or struct
        return
    elements = _split(data, byte_order)
    if len(elements) < 3 or depth > 20 or len(elements[0][1]) != 8:
        raise ValueError("corrupt")
    flags = _read_int(elements[0][1], byte_order)
    dims = [number for (number,) in struct.iter_unpack(f"{byte_order}i", elements[1][1][:132])]
    if not 2 <= len(dims) <= 32 or min(dims) < 0 or elements[1][0] != 5:
        raise ValueError("corrupt")
    number, rest = math.prod(dims), elements[3:]
    kind, is_complex = flags & 0xFF, bool(flags & _COMPLEX_FLAG)
    if kind in _NUMERIC:
        expected = is_complex + (3 if kind == _SPARSE else 1)
        _check_types(rest, expected, _DATA_TYPES)
    elif kind in (_CELL, _STRUCT, _OBJECT):
        if kind != _CELL:
            head, rest = rest[:kind], rest[kind:]  # an object has its class name first
            _check_types(head, kind, _DATA_TYPES)
            width = _read_int(head[kind - 2][1], byte_order)
            if width <= 0:
                raise ValueError("corrupt")
            number *= len(head[kind - 1][1]) // width
        _check_types(rest, number, {_MATRIX})
        for _, content in rest:
            check_matrix(content, byte_order, depth + 1)
    else:
        raise ValueError("contains a function handle or another object")


def _read_int(data: memoryview, byte_order: str) -> int:
    if len(data) < 4:
        raise ValueError("corrupt")
    value: int = struct.unpack_from(f"{byte_order}i", data)[0]
    return value


def _check_types(elements: list[Element], number: int, types: set[int]) -> None:
    if len(elements) != number or any(kind not in types for kind, _ in elements):
        raise ValueError("corrupt")


def _split(data: memoryview, byte_order: str) -> list[Element]:
    """Return the elements of a matrix. Each begins at a multiple of 8 bytes after the last one."""
    elements: list[Element] = []
    position = 0
    while position < len(data):
        if position + 8 > len(data) or len(elements) > _MAX_ELEMENTS:
            raise ValueError("corrupt")
        kind, length = struct.unpack_from(f"{byte_order}II", data, position)
        start, end = position + 8, position + 8 + length + -length % 8
        if kind >> 16:  # up to 4 bytes are stored in the tag
            kind, length = kind & 0xFFFF, kind >> 16
            start, end = position + 4, position + 8
        if length > (len(data) - start if start == position + 8 else 4):
            raise ValueError("truncated")
        elements.append((kind, data[start : start + length]))
        position = end
    return elements

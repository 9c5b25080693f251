"""Facts about NYUD-v2: class names, the 40 -> 13 class map, the camera.

Sources: Silberman et al., ECCV 2012 (camera, 894 labels); Gupta et al., CVPR 2013 (40 classes);
Couprie et al., ICLR 2013 (13 classes).
"""

from __future__ import annotations

from densemtl.transforms.camera import Intrinsics
from densemtl.types import Size

_NAMES_40 = """
wall, floor, cabinet, bed, chair, sofa, table, door, window, bookshelf, picture, counter, blinds,
desk, shelves, curtain, dresser, pillow, mirror, floor mat, clothes, ceiling, books, refrigerator,
television, paper, towel, shower curtain, box, whiteboard, person, night stand, toilet, sink, lamp,
bathtub, bag, otherstructure, otherfurniture, otherprop
"""

_NAMES_13 = """
bed, books, ceiling, chair, floor, furniture, objects, picture, sofa, table, tv, wall, window
"""

CLASSES_40, CLASSES_13 = (
    tuple(name.strip() for name in names.split(",")) for names in (_NAMES_40, _NAMES_13)
)

CLASS_40_TO_13 = (
    *(12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5),
    *(7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7),
)
"""The class 1..13 of each class 1..40."""

EDGE_MAX_DISTANCE = 0.011
"""How far apart matched edges may lie, as a share of the diagonal."""

FULL_SIZE: Size = (480, 640)

VALID_CROP_BOX = (45, 41, 425, 560)
"""(top, left, height, width) of the frame that is valid in both cameras, the usual crop."""

COLOR_INTRINSICS = Intrinsics(fx=518.857901, fy=519.469611, cx=324.582449, cy=252.736166)
"""Of the colour camera at 640x480, whose pixels the depth is projected to; centre 0-based."""


def get_intrinsics(size: Size) -> Intrinsics:
    """The camera of frames of a size: full or cropped, told by their shape, and scaled."""
    top, left, crop_height, crop_width = VALID_CROP_BOX
    shape, full, crop = size[1] / size[0], FULL_SIZE[1] / FULL_SIZE[0], crop_width / crop_height
    if abs(shape - crop) < abs(shape - full):
        return COLOR_INTRINSICS.shift(-left, -top).scale(size[1] / crop_width)
    return COLOR_INTRINSICS.scale(size[1] / FULL_SIZE[1])

"""Class names, class map and camera of NYUD-v2.

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
"""Class 1..13 of each class 1..40."""

EDGE_MAX_DISTANCE = 0.011
"""Maximum distance of matched edge pixels, as a fraction of the image diagonal."""

FULL_SIZE: Size = (480, 640)

VALID_CROP_BOX = (45, 41, 425, 560)
"""(top, left, height, width) of the usual crop: the pixels that are valid in both cameras."""

COLOR_INTRINSICS = Intrinsics(fx=518.857901, fy=519.469611, cx=324.582449, cy=252.736166)
"""Color camera at 640x480 pixels, to which depth is projected; 0-based center."""


def get_intrinsics(size: Size) -> Intrinsics:
    """Return the camera of full or cropped images at any scale.

    Args:
        size: (height, width) of the image in pixels. The aspect ratio decides whether the image is
            cropped to `VALID_CROP_BOX`.

    Returns:
        Intrinsics in pixels of this image.

    Example:
        >>> get_intrinsics((240, 320)).fx
        259.4289505
    """
    top, left, crop_height, crop_width = VALID_CROP_BOX
    ratio, full, crop = size[1] / size[0], FULL_SIZE[1] / FULL_SIZE[0], crop_width / crop_height
    if abs(ratio - crop) < abs(ratio - full):
        return COLOR_INTRINSICS.shift(-left, -top).scale(size[1] / crop_width)
    return COLOR_INTRINSICS.scale(size[1] / FULL_SIZE[1])

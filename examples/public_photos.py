"""Write four photographs that installed packages contain, for `make demo`.

    python examples/public_photos.py build/demo/photos

Three are from scikit-image, which `densemtl[dev]` installs, and one is from matplotlib. All are in
the public domain or CC0: astronaut (NASA), coffee (Rachel Michetti), chelsea (Stefan van der Walt),
grace_hopper (US Navy).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import skimage.data
from matplotlib.cbook import get_sample_data
from PIL import Image


def write_photos(folder: Path) -> list[Path]:
    """Write the photographs as PNG files.

    Args:
        folder: folder to write; created if it does not exist.

    Returns:
        The files.
    """
    data: Any = skimage.data  # has no type hints
    photos = {
        "astronaut": Image.fromarray(data.astronaut()),
        "coffee": Image.fromarray(data.coffee()),
        "chelsea": Image.fromarray(data.chelsea()),
        "grace_hopper": Image.open(str(get_sample_data("grace_hopper.jpg", asfileobj=False))),
    }
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png" for name in photos]
    for file, photo in zip(files, photos.values(), strict=True):
        photo.save(file)
    return files


if __name__ == "__main__":
    write_photos(Path(sys.argv[1]))

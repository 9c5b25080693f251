"""Views written to disk as the archives of NYUD-v2 and PASCAL-Context lay out their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.io.atomic import replacing
from densemtl.data.datasets.synthetic_scenes.classes import CLASSES, part_id
from densemtl.data.datasets.synthetic_scenes.targets import main_object, object_edges
from densemtl.data.datasets.synthetic_scenes.render import View
from densemtl.io.writers import write_array, write_lines, write_normals, write_picture
from densemtl.types import VOID


@dataclass(frozen=True)
class Layout:
    """How one archive names and stores things.

    Attributes:
        image: an image's file, with `{}` for its name.
        split: a split list, with `{}` for "train" or "val".
        name: an image's name, a format of its number from 1.
        write: writes all labels of a view below a root: (root, name, view).
    """

    image: str
    split: str
    name: str
    write: Callable[[Path, str, View], None]

    def done(self, root: Path, number: int) -> bool:
        """Whether an image and all its labels are there: the image is written last."""
        return (root / self.image.format(self.name.format(number))).exists()

    def save(self, root: Path, number: int, view: View) -> None:
        """Write one view; every file appears whole or not at all."""
        name = self.name.format(number)
        self.write(root, name, view)
        write_picture(root / self.image.format(name), view.image)

    def save_split(self, root: Path, split: str, numbers: Sequence[int]) -> None:
        """Write a split list."""
        names = [self.name.format(number) for number in numbers]
        write_lines(root / self.split.format(split), names)


@dataclass(frozen=True)
class Job:
    """One image to render and write, perhaps in another process.

    Attributes:
        layout: how.
        root: below which folder.
        number: of the image, from 1.
        view: renders it.
    """

    layout: Layout
    root: Path
    number: int
    view: Callable[[], View]

    def run(self) -> None:
        """Render and write; the processes are the parallelism, so OpenCV keeps to one thread."""
        cv2.setNumThreads(0)
        self.layout.save(self.root, self.number, self.view())


def _write_nyud(root: Path, name: str, view: View) -> None:
    """The survey's NYUD_MT: classes 1..40 as PNG, the rest as NumPy arrays."""
    write_picture(root / "segmentation" / f"{name}.png", _NYU40[view.semseg])
    write_array(root / "depth" / f"{name}.npy", view.depth)
    write_array(root / "normals" / f"{name}.npy", view.normals)
    write_array(root / "edge" / f"{name}.npy", object_edges(view).astype(np.float32))


def _write_pascal_context(root: Path, name: str, view: View) -> None:
    """PASCAL_MT; saliency and objects are left out where there are none."""
    write_picture(root / "semseg" / "VOC12" / f"{name}.png", _VOC21[view.semseg])
    context = root / "pascal-context" / "trainval" / f"{name}.mat"
    _matlab(context, {"LabelMap": _CONTEXT459[view.semseg]})
    write_normals(root / "normals_distill" / f"{name}.png", view.normals, bits=8)
    salient = main_object(view)
    if not (salient == VOID).all():
        write_picture(root / "sal_distill" / f"{name}.png", salient * np.uint8(255))
    objects = _objects(view)
    if objects:
        anno = _struct([{"imname": name, "objects": _struct(objects)}])
        _matlab(root / "human_parts" / f"{name}.mat", {"anno": anno})


def _objects(view: View) -> list[dict[str, Any]]:
    """PASCAL-Part's records of the objects of VOC's classes; only people have parts here."""
    found = []
    category = _VOC21[view.semseg]
    for number in np.unique(view.instance[category > 0]).tolist():
        mask = view.instance == number
        index = int(category[mask][0])
        parts = [
            {"part_name": part, "mask": (mask & (view.parts == value)).astype(np.uint8)}
            for value, part in _PART_NAMES.items()
            if (mask & (view.parts == value)).any()
        ]
        record = {"class": _VOC_NAMES[index], "class_ind": index, "mask": mask.astype(np.uint8)}
        found.append({**record, "parts": _struct(parts)})
    return found


def _struct(records: Sequence[dict[str, Any]]) -> NDArray[Any]:
    """A 1xN MATLAB struct array; 0x0 for none."""
    if not records:
        return np.empty((0, 0))
    array = np.empty((1, len(records)), [(key, object) for key in records[0]])
    for column, record in enumerate(records):
        array[0, column] = tuple(record.values())
    return array


def _matlab(file: Path, variables: dict[str, Any]) -> None:
    from scipy.io import savemat

    with replacing(file) as draft:
        savemat(draft, variables, do_compression=True)


def _table(ids: dict[str, int], dtype: type[np.unsignedinteger]) -> NDArray[Any]:
    """Ids of another label set, one a class of ours; 0 for those it lacks."""
    return np.array([ids.get(name, 0) for name in CLASSES], dtype)


_VOC_NAMES = {9: "chair", 11: "table", 15: "person", 16: "pottedplant", 18: "sofa"}

_VOC21 = _table({"chair": 9, "table": 11, "person": 15, "plant": 16, "sofa": 18}, np.uint8)

_NYU40 = _table(
    {
        **{"wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7},
        **{"door": 8, "window": 9, "picture": 11, "rug": 20, "ceiling": 22, "person": 31},
        **{"lamp": 35, "plant": 40},
    },
    np.uint8,
)
"""A rug is a floor mat there, a plant one of the other props."""

_CONTEXT459 = _table(
    {
        **{"bed": 18, "cabinet": 46, "ceiling": 68, "chair": 72, "door": 115, "floor": 158},
        **{"lamp": 232, "person": 284, "picture": 287, "plant": 308, "rug": 330, "sofa": 368},
        **{"table": 397, "wall": 440, "window": 454},
    },
    np.uint16,
)

_PART_NAMES = {
    **{part_id("head"): "head", part_id("torso"): "torso"},
    **{part_id("upper arm"): "luarm", part_id("lower arm"): "llarm"},
    **{part_id("upper leg"): "luleg", part_id("lower leg"): "llleg"},
}
"""PASCAL-Part's names; a left one stands for both sides."""

LAYOUTS = {
    "nyud": Layout("images/{}.jpg", "gt_sets/{}.txt", "{:04d}", _write_nyud),
    "pascal_context": Layout(
        "JPEGImages/{}.jpg", "ImageSets/Context/{}.txt", "2008_{:06d}", _write_pascal_context
    ),
}

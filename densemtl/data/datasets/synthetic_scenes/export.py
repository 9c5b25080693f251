"""Export of rendered scenes in the file layouts of NYUD-v2 and PASCAL-Context."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.classes import CLASSES, get_part_id
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene
from densemtl.data.datasets.synthetic_scenes.targets import find_object_edges, find_salient_object
from densemtl.io.atomic import atomic_write
from densemtl.io.writers import write_array, write_image, write_normals, write_split_list
from densemtl.types import IGNORE_INDEX


@dataclass(frozen=True)
class DatasetLayout:
    """File layout of a dataset.

    Attributes:
        image_pattern: path of an image file, with `{}` for the image id.
        split_list_pattern: path of a split list, with `{}` for "train" or "val".
        name_format: format of the image id, given the number of the image from 1.
        write_labels: function of root folder, image id and rendered scene that writes all labels.
    """

    image_pattern: str
    split_list_pattern: str
    name_format: str
    write_labels: Callable[[Path, str, RenderedScene], None]

    def is_written(self, root: Path, number: int) -> bool:
        """Return whether an image and all its labels exist, as the image is written last.

        Args:
            root: root folder of the dataset.
            number: number of the image, from 1.

        Returns:
            Whether the image file exists.
        """
        return (root / self.image_pattern.format(self.name_format.format(number))).exists()

    def write_sample(self, root: Path, number: int, scene: RenderedScene) -> None:
        """Write the image and labels of a scene; every file is written atomically.

        Args:
            root: root folder of the dataset.
            number: number of the image, from 1.
            scene: rendered scene.
        """
        name = self.name_format.format(number)
        self.write_labels(root, name, scene)
        write_image(root / self.image_pattern.format(name), scene.image)

    def write_split(self, root: Path, split: str, numbers: Sequence[int]) -> None:
        """Write a split list.

        Args:
            root: root folder of the dataset.
            split: "train" or "val".
            numbers: numbers of the images of the split, from 1.
        """
        names = [self.name_format.format(number) for number in numbers]
        write_split_list(root / self.split_list_pattern.format(split), names)


@dataclass(frozen=True)
class ExportJob:
    """Image to be rendered and written, possibly in a worker process.

    Attributes:
        layout: file layout.
        root: root folder of the dataset.
        number: number of the image, from 1.
        render: function that renders the scene.
    """

    layout: DatasetLayout
    root: Path
    number: int
    render: Callable[[], RenderedScene]

    def run(self) -> None:
        """Render and write the image and its labels."""
        # Several worker processes run in parallel, so OpenCV uses one thread in each.
        cv2.setNumThreads(0)
        self.layout.write_sample(self.root, self.number, self.render())


def _write_nyud(root: Path, name: str, scene: RenderedScene) -> None:
    """Write labels as in NYUD_MT of the survey: classes 1..40 as PNG, others as NumPy arrays."""
    write_image(root / "segmentation" / f"{name}.png", _NYU40_IDS[scene.semseg])
    write_array(root / "depth" / f"{name}.npy", scene.depth)
    write_array(root / "normals" / f"{name}.npy", scene.normals)
    write_array(root / "edge" / f"{name}.npy", find_object_edges(scene).astype(np.float32))


def _write_pascal_context(root: Path, name: str, scene: RenderedScene) -> None:
    """Write labels as in PASCAL_MT; saliency and objects are omitted if the image has none."""
    write_image(root / "semseg" / "VOC12" / f"{name}.png", _VOC21_IDS[scene.semseg])
    context = root / "pascal-context" / "trainval" / f"{name}.mat"
    _write_mat(context, {"LabelMap": _CONTEXT459_IDS[scene.semseg]})
    write_normals(root / "normals_distill" / f"{name}.png", scene.normals, bits=8)
    salient = find_salient_object(scene)
    if not (salient == IGNORE_INDEX).all():
        write_image(root / "sal_distill" / f"{name}.png", salient * np.uint8(255))
    objects = _make_object_records(scene)
    if objects:
        anno = _make_struct_array([{"imname": name, "objects": _make_struct_array(objects)}])
        _write_mat(root / "human_parts" / f"{name}.mat", {"anno": anno})


def _make_object_records(scene: RenderedScene) -> list[dict[str, Any]]:
    """Return PASCAL-Part's records of the objects of VOC classes; only people have parts."""
    records = []
    category = _VOC21_IDS[scene.semseg]
    for number in np.unique(scene.instance[category > 0]).tolist():
        mask = scene.instance == number
        index = int(category[mask][0])
        parts = [
            {"part_name": part, "mask": (mask & (scene.parts == value)).astype(np.uint8)}
            for value, part in _PART_NAMES.items()
            if (mask & (scene.parts == value)).any()
        ]
        record = {"class": _VOC_NAMES[index], "class_ind": index, "mask": mask.astype(np.uint8)}
        records.append({**record, "parts": _make_struct_array(parts)})
    return records


def _make_struct_array(records: Sequence[dict[str, Any]]) -> NDArray[Any]:
    """Return a 1xN MATLAB struct array of N records, or 0x0 without records."""
    if not records:
        return np.empty((0, 0))
    array = np.empty((1, len(records)), [(key, object) for key in records[0]])
    for column, record in enumerate(records):
        array[0, column] = tuple(record.values())
    return array


def _write_mat(file: Path, variables: dict[str, Any]) -> None:
    from scipy.io import savemat

    with atomic_write(file) as tmp_path:
        savemat(tmp_path, variables, do_compression=True)


def _make_id_table(ids: dict[str, int], dtype: type[np.unsignedinteger]) -> NDArray[Any]:
    """Return the id in another label set of each class of ours, 0 for classes that it lacks."""
    return np.array([ids.get(name, 0) for name in CLASSES], dtype)


_VOC_NAMES = {9: "chair", 11: "table", 15: "person", 16: "pottedplant", 18: "sofa"}

_VOC21_IDS = _make_id_table(
    {"chair": 9, "table": 11, "person": 15, "plant": 16, "sofa": 18}, np.uint8
)

_NYU40_IDS = _make_id_table(
    {
        **{"wall": 1, "floor": 2, "cabinet": 3, "bed": 4, "chair": 5, "sofa": 6, "table": 7},
        **{"door": 8, "window": 9, "picture": 11, "rug": 20, "ceiling": 22, "person": 31},
        **{"lamp": 35, "plant": 40},
    },
    np.uint8,
)
"""In NYUD's 40 classes, a rug is a floor mat and a plant is one of the other props."""

_CONTEXT459_IDS = _make_id_table(
    {
        **{"bed": 18, "cabinet": 46, "ceiling": 68, "chair": 72, "door": 115, "floor": 158},
        **{"lamp": 232, "person": 284, "picture": 287, "plant": 308, "rug": 330, "sofa": 368},
        **{"table": 397, "wall": 440, "window": 454},
    },
    np.uint16,
)

_PART_NAMES = {
    **{get_part_id("head"): "head", get_part_id("torso"): "torso"},
    **{get_part_id("upper arm"): "luarm", get_part_id("lower arm"): "llarm"},
    **{get_part_id("upper leg"): "luleg", get_part_id("lower leg"): "llleg"},
}
"""Names of parts in PASCAL-Part; the name of the left part is used for both sides."""

LAYOUTS = {
    "nyud": DatasetLayout("images/{}.jpg", "gt_sets/{}.txt", "{:04d}", _write_nyud),
    "pascal_context": DatasetLayout(
        "JPEGImages/{}.jpg", "ImageSets/Context/{}.txt", "2008_{:06d}", _write_pascal_context
    ),
}

"""Color masks, id maps and converted depth of custom datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from densemtl.config.experiment import load_saved
from densemtl.data.datasets.folder_labels import LabelSpec
from densemtl.errors import ConfigError, DataError
from densemtl.types import IGNORE_INDEX
from tests.data.datasets.test_folder_values import make, make_map
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.fake_datasets import Array, write_image

NAMES = ["road", "car"]
ROAD, CAR, VOID = (128, 64, 128), (0, 0, 142), (0, 0, 0)
MASK = np.array([[ROAD, CAR, VOID]] * 2, np.uint8)
CLASSES = make_map(0, 1, IGNORE_INDEX)


def write_indexed(file: Path, mask: Array) -> None:
    """Write a color mask as a PNG with a palette."""
    Image.fromarray(mask).convert("P", palette=Image.Palette.ADAPTIVE).save(file)


@pytest.mark.parametrize("stored", ["rgb", "rgba", "indexed", "npz"])
@pytest.mark.parametrize("palette", [[ROAD, CAR], "colors.txt"])
def test_color_masks(tmp_path: Path, stored: str, palette: Any) -> None:
    (tmp_path / "colors.txt").write_text("128 64 128 road\n0 0 142 car\n", encoding="utf-8")
    mask = np.dstack([MASK, np.full((2, 3), 9, np.uint8)]) if stored == "rgba" else MASK
    options = {"class_names": NAMES, "palette": palette, "ignore_colors": [VOID]}
    make(tmp_path, MASK, **options)
    for file in (tmp_path / "labels").iterdir():
        if stored == "npz":
            file.unlink()
            np.savez(file.with_suffix(".npz"), mask=mask, more=mask)
        elif stored == "indexed":
            write_indexed(file, mask)
        else:
            Image.fromarray(mask).save(file)
    spec = LabelSpec(files="labels", key="mask", **options)
    read = spec.make_reader("semseg", tmp_path)
    for file in (tmp_path / "labels").iterdir():
        np.testing.assert_array_equal(read(file), CLASSES)


def test_unknown_color_names_file_and_color(tmp_path: Path) -> None:
    dataset = make(tmp_path, MASK, class_names=NAMES, palette=[ROAD, CAR], ignore_colors=[VOID])
    write_image(tmp_path / "labels" / "a.png", MASK + np.uint8(1))
    write_image(tmp_path / "labels" / "b.png", MASK + np.uint8(1))
    with pytest.raises(DataError, match=r"labels.[ab]\.png: the color \[129, 65, 129\] at row 0"):
        dataset[0]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_several_stored_ids_are_one_class(tmp_path: Path, dtype: type) -> None:
    stored = np.array([[7, 8, 33, 0]] * 2, dtype)
    values = {7: 0, 8: 1, 33: 1, 4_000_000: 0}
    spec = LabelSpec(files="x", class_names=NAMES, class_values=values, ignore_values=(0,))
    file = tmp_path / "a.npy"
    np.save(file, stored)
    read = spec.make_reader("semseg", tmp_path)
    np.testing.assert_array_equal(read(file), make_map(0, 1, 1, 255))
    np.save(file, np.where(stored == 8, 9, stored).astype(dtype))
    with pytest.raises(DataError, match=r"a\.npy: class id 9 is not among .*7\.\.8, 33"):
        read(file)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("semseg", {"class_values": {7: 0}}, "class 1 is missing"),
        ("semseg", {"class_values": {7: 0, 8: 1, 9: 2}}, "class 2 is missing or has no name"),
        ("semseg", {"class_values": {7: 0, 8: 1}, "ignore_values": [8]}, "in ignore_values"),
        ("semseg", {"palette": [ROAD]}, "1 colors for 2 class_names"),
        ("semseg", {"palette": [ROAD, ROAD]}, r"color \[128, 64, 128\] is listed twice"),
        ("semseg", {"palette": [ROAD, CAR], "ignore_colors": [CAR]}, "listed twice"),
        ("semseg", {"palette": [ROAD, CAR], "class_values": [1, 2]}, "replaces class_values"),
        ("semseg", {"ignore_colors": [VOID]}, "must be given if ignore_colors"),
        ("semseg", {"ignore_values": [0.5]}, "must be whole numbers"),
        ("semseg", {"inverse": True}, "only for regression and depth.*contain classes"),
        ("depth", {"palette": [ROAD, CAR]}, "only for classes.*contain depth"),
        ("depth", {"inverse": True}, "scale: must be given"),
        ("normals", {"valid_range": (0, 1)}, "only for regression and depth"),
    ],
)
def test_options_that_do_not_fit_are_one_line(
    task: str, options: dict[str, Any], message: str
) -> None:
    spec = LabelSpec(files="x", class_names=NAMES, **options)
    with pytest.raises(ConfigError, match=rf"data\.labels\.{task}\..*{message}") as error:
        spec.make_reader(task, Path())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("palette: [[0, 0, 256]]", r"a list of \[R, G, B\] from 0 to 255"),
        ("palette: 7", "or a text file"),
        ("class_values: {1: a}", "or {stored id: class}"),
        ("class_values: {1: 255}", "or {stored id: class}"),
        ("ignore_values: [x]", r"ignore_values\.0: must be a number, \.inf or -\.inf"),
        ("ignore_values: [.nan]", r"ignore_values\.0: must be a number"),
        ("offset: .inf", "offset: Input should be"),
        ("scale: .inf", "scale: Input should be"),
        ("valid_range: [2, 1]", "valid_range: give the smaller value first"),
        ("valid_range: [.nan, 1]", "valid_range"),
    ],
)
def test_wrong_values_are_one_line(option: str, message: str) -> None:
    data = f"data={{name: folder, root: x, images: x, labels: {{depth: {{files: x, {option}}}}}}}"
    with pytest.raises(ConfigError, match=rf"data\.labels\.depth\..*{message}") as error:
        make_tiny_experiment("tasks=[depth]", data)
    assert "\n" not in str(error.value)


def test_infinite_values_survive_saving() -> None:
    data = (
        "data={name: folder, root: x, images: x, labels: {depth: {files: x, class_values: {7: 0},"
        " ignore_values: [.inf, 3], valid_range: [0, .inf]}}}"
    )
    experiment = make_tiny_experiment("tasks=[depth]", data)
    loaded = load_saved(experiment.to_yaml(), Path("config.yaml"))
    assert loaded.compute_config_hash() == experiment.compute_config_hash()
    assert loaded.data.options["labels"]["depth"]["ignore_values"] == [float("inf"), 3]


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        (make_map(0, 1, 3, dtype=np.uint16), {"inverse": True, "scale": 0.1}, [np.nan, 10, 10 / 3]),
        (
            make_map(0, 1, 3, dtype=np.uint16),
            {"inverse": True, "scale": 0.1, "offset": -0.1},
            [np.nan, np.nan, 5],
        ),
        (make_map(0, 100, 200), {"scale": 0.5, "offset": 1}, [np.nan, 51, 101]),
        (make_map(0, 100, 3000, dtype=np.uint16), {"valid_range": [0.2, 5]}, [np.nan, np.nan, 3]),
        (
            make_map(-1, 2, 5000, dtype=np.float32),
            {"ignore_values": [-1], "valid_range": [0, 80]},
            [np.nan, 2, np.nan],
        ),
        (
            make_map(-np.inf, 2, np.inf, dtype=np.float32),
            {"ignore_values": [float("-inf")]},
            [np.nan, 2, np.nan],
        ),
    ],
)
def test_depth_is_converted(
    tmp_path: Path, stored: Array, options: dict[str, Any], expected: list[float]
) -> None:
    depth = make(tmp_path, stored, "depth", **options)[0].targets["depth"]
    np.testing.assert_allclose(depth[0], np.array(expected, np.float32), rtol=1e-6)

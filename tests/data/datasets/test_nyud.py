"""NYUD-v2 in the layouts of all archives, and errors of one line."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from densemtl.data.datasets import nyud_metadata
from densemtl.data.datasets.nyud import NYUDDataset
from densemtl.errors import DataError
from densemtl.io.writers import write_normals
from densemtl.types import IGNORE_INDEX
from tests.helpers import fake_datasets

TASKS = ["semseg", "depth", "normals", "edge"]
SHARED = Path(os.environ.get("DENSEMTL_DATA", Path(__file__).parents[4] / "shared" / "data"))
LAYOUTS = [
    fake_datasets.write_nyud_survey,
    fake_datasets.write_nyud_astmt,
    fake_datasets.write_nyud_atrc,
    fake_datasets.write_nyud_png_depth,
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_samples_of_every_layout(layout: Callable[[Path], list[str]], tmp_path: Path) -> None:
    ids = layout(tmp_path)
    for split, own in (("train", ids[:2]), ("val", ids[2:])):
        dataset = NYUDDataset(split, TASKS, root=tmp_path)
        assert list(dataset.ids) == own
        for sample in (dataset[index] for index in range(len(dataset))):
            check_sample(sample, 40)


def check_sample(sample, classes: int) -> None:
    """Check the types, shapes and ranges of a sample."""
    assert sample.image.dtype == np.uint8
    assert sample.image.shape == (*fake_datasets.SIZE, 3)
    semseg, depth, edge = (sample.targets[task] for task in ("semseg", "depth", "edge"))
    assert semseg.dtype == np.uint8
    assert set(np.unique(semseg)) <= {*range(classes), IGNORE_INDEX}
    assert depth.dtype == np.float32
    assert np.isnan(depth[0, 0])
    assert 1 < np.nanmin(depth) <= np.nanmax(depth) < 5
    assert set(np.unique(edge)) == {0, 1}
    if "normals" in sample.targets:
        normals = sample.targets["normals"]
        assert normals.shape == (*fake_datasets.SIZE, 3)
        np.testing.assert_allclose(np.linalg.norm(normals[1:], axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_equal_the_written_values(
    layout: Callable[[Path], list[str]], tmp_path: Path
) -> None:
    layout(tmp_path)
    targets = NYUDDataset("train", TASKS, root=tmp_path)[0].targets
    scene = fake_datasets.FakeScene(0, fake_datasets.SIZE)
    stored = scene.make_ids(41)
    np.testing.assert_array_equal(targets["semseg"] == IGNORE_INDEX, stored == 0)
    np.testing.assert_array_equal(targets["semseg"][stored > 0], stored[stored > 0] - 1)
    np.testing.assert_allclose(targets["depth"][1:], scene.depth[1:], atol=6e-4)
    np.testing.assert_array_equal(targets["edge"], scene.edge)
    if layout is not fake_datasets.write_nyud_astmt:
        np.testing.assert_allclose(targets["normals"][1:], scene.normals[1:], atol=8e-3)
        assert np.isnan(targets["normals"][0, 0]).all()


@pytest.mark.parametrize("first", [False, True])
def test_mtan_layout(first: bool, tmp_path: Path) -> None:
    fake_datasets.write_nyud_mtan(tmp_path, 24, channels_first=first)
    dataset = NYUDDataset("val", ["semseg", "depth", "normals"], root=tmp_path, num_classes=13)
    assert list(dataset.ids) == [str(number) for number in range(12)]
    sample, scene = dataset[3], fake_datasets.FakeScene(15, fake_datasets.SIZE)
    np.testing.assert_array_equal(sample.image, scene.image)
    np.testing.assert_array_equal(
        sample.targets["semseg"].astype(np.uint8) + np.uint8(1), scene.make_ids(14)
    )
    np.testing.assert_array_equal(sample.targets["depth"][1:], scene.depth[1:])
    np.testing.assert_allclose(sample.targets["normals"][1:], scene.normals[1:], rtol=1e-5)
    with pytest.raises(DataError, match="no edge label"):
        NYUDDataset("val", ["edge"], root=tmp_path, num_classes=13)
    with pytest.raises(DataError, match=r"data\.num_classes=13"):
        NYUDDataset("val", ["semseg"], root=tmp_path)


def test_forty_classes_are_mapped_to_thirteen(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    many, few = (
        NYUDDataset("train", ["semseg"], root=tmp_path, num_classes=n)[0] for n in (40, 13)
    )
    forty, thirteen = many.targets["semseg"], few.targets["semseg"]
    names = {"wall": "wall", "bed": "bed", "television": "tv", "desk": "table", "box": "objects"}
    for name, coarse in names.items():
        mask = forty == nyud_metadata.CLASSES_40.index(name)
        assert (thirteen[mask] == nyud_metadata.CLASSES_13.index(coarse)).all()
    np.testing.assert_array_equal(forty == IGNORE_INDEX, thirteen == IGNORE_INDEX)


def test_task_defaults() -> None:
    assert len(NYUDDataset.task_defaults()["semseg"]["class_names"]) == 40
    assert (
        len(NYUDDataset.task_defaults(num_classes=13, root=Path())["semseg"]["class_names"]) == 13
    )
    assert set(NYUDDataset.task_defaults()) == set(TASKS)
    assert NYUDDataset.task_defaults()["edge"] == {
        "max_distance": 0.011,
        "region_label_protocols": ["modern"],
    }


def test_only_labels_of_the_tasks_are_read(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    for file in (tmp_path / "depth").iterdir():
        file.write_bytes(b"broken")
    for file in (tmp_path / "edge").iterdir():
        file.unlink()
    assert set(NYUDDataset("train", ["semseg"], root=tmp_path)[0].targets) == {"semseg"}


def test_train_split_name_selects_the_list(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    (tmp_path / "gt_sets" / "mini.txt").write_text("0004\r\n0001\r\n")
    assert NYUDDataset("train", [], root=tmp_path, train_split_name="mini").ids == ("0004", "0001")


def test_label_missing_for_one_image_is_absent(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    (tmp_path / "normals" / "0001.npy").unlink()
    dataset = NYUDDataset("train", ["semseg", "normals"], root=tmp_path)
    assert [set(dataset[index].targets) for index in range(2)] == [
        {"semseg"},
        {"semseg", "normals"},
    ]


def test_label_missing_for_all_images_is_an_error(tmp_path: Path) -> None:
    fake_datasets.write_nyud_png_depth(tmp_path)
    for name in ("0003", "0004"):
        (tmp_path / "normals" / f"{name}.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match=r"normals: no normals label for any of the 2 .* 'val'"):
        NYUDDataset("val", ["normals"], root=tmp_path)


def test_derived_normals_are_used_in_training_only(tmp_path: Path) -> None:
    root, derived = tmp_path / "nyud", tmp_path / "derived"
    fake_datasets.write_nyud_png_depth(root)
    (root / "normals" / "0002.png").unlink()
    up = np.broadcast_to(np.array([0.0, -1.0, 0.0]), (*fake_datasets.SIZE, 3))
    for name in ("0001", "0002", "0003", "0004"):
        write_normals(derived / f"{name}.png", up, bits=8)
    options = {"root": root, "derived_normals": derived}
    given, filled = (
        NYUDDataset("train", ["normals"], **options)[i].targets["normals"] for i in (0, 1)
    )
    np.testing.assert_allclose(filled, up, atol=6e-3)
    assert np.nanmean(given[..., 2]) < -0.8
    val = NYUDDataset("val", ["normals"], **options)
    assert [set(val[index].targets) for index in (0, 1)] == [{"normals"}, set()]


def test_derived_normals_are_in_camera_axes_for_any_normals_axes(tmp_path: Path) -> None:
    root, derived = tmp_path / "nyud", tmp_path / "derived"
    fake_datasets.write_nyud_survey(root)
    (root / "normals" / "0002.npy").unlink()
    facing = np.broadcast_to(np.array([0.6, 0.0, -0.8]), (*fake_datasets.SIZE, 3))
    fake_datasets.write_array(root / "normals" / "0001.npy", facing * [-1, 1, -1])
    write_normals(derived / "0002.png", facing, bits=16)
    axes = ("left", "down", "backward")
    options = {"root": root, "derived_normals": derived, "normals_axes": axes}
    for index in (0, 1):
        normals = NYUDDataset("train", ["normals"], **options)[index].targets["normals"]
        np.testing.assert_allclose(normals, facing, atol=1e-4)


def test_missing_derived_normals_are_an_error(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    with pytest.raises(DataError, match=r"none: no derived normals .*prepare_nyud normals"):
        NYUDDataset("train", ["normals"], root=tmp_path, derived_normals=tmp_path / "none")


def truncate_image(root: Path) -> Path:
    file = root / "images" / "0001.jpg"
    file.write_bytes(file.read_bytes()[:1500])
    return file


def shrink_label(root: Path) -> Path:
    file = root / "segmentation" / "0001.png"
    fake_datasets.write_image(file, np.ones((24, 32), np.uint8))
    return file


def blank_depth(root: Path) -> Path:
    file = root / "depth" / "0001.npy"
    fake_datasets.write_array(file, np.full(fake_datasets.SIZE, np.nan, np.float32))
    return file


def unknown_class(root: Path) -> Path:
    file = root / "segmentation" / "0001.png"
    fake_datasets.write_image(file, np.full(fake_datasets.SIZE, 41, np.uint8))
    return file


def long_normals(root: Path) -> Path:
    file = root / "normals" / "0001.npy"
    fake_datasets.write_array(file, np.full((*fake_datasets.SIZE, 3), 2.0))
    return file


def colored_edges(root: Path) -> Path:
    file = root / "edge" / "0001.npy"
    fake_datasets.write_array(file, np.zeros((*fake_datasets.SIZE, 3)))
    return file


@pytest.mark.parametrize(
    "damage",
    [truncate_image, shrink_label, blank_depth, unknown_class, long_normals, colored_edges],
)
def test_invalid_file_is_an_error_of_one_line(
    damage: Callable[[Path], Path], tmp_path: Path
) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    file = damage(tmp_path)
    dataset = NYUDDataset("train", TASKS, root=tmp_path)
    with pytest.raises(DataError) as caught:
        dataset[0]
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)
    assert dataset[1].id == "0002"


def test_errors_at_construction(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no NYUD-v2 here.*gt_sets/train\.txt.*data\.root"):
        NYUDDataset("train", TASKS, root=tmp_path)
    fake_datasets.write_nyud_survey(tmp_path)
    (tmp_path / "images" / "0002.jpg").unlink()
    with pytest.raises(DataError, match=r"train\.txt: 1 of its 2 images .* '0002'"):
        NYUDDataset("train", TASKS, root=tmp_path)
    (tmp_path / "gt_sets" / "val.txt").write_text("")
    with pytest.raises(DataError, match=r"val\.txt: the split list is empty"):
        NYUDDataset("val", TASKS, root=tmp_path)


def test_dataset_can_be_pickled(tmp_path: Path) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    dataset = NYUDDataset("train", TASKS, root=tmp_path)
    copy = pickle.loads(pickle.dumps(dataset))
    for task, target in dataset[1].targets.items():
        np.testing.assert_array_equal(copy[1].targets[task], target)


def test_intrinsics_of_full_cropped_and_scaled_images() -> None:
    """The usual images are cropped to 425x560; those of MTAN are full images, scaled."""
    crop, half = nyud_metadata.get_intrinsics((425, 560)), nyud_metadata.get_intrinsics((212, 280))
    assert (crop.fx, crop.cx) == pytest.approx((518.857901, 283.582449))
    assert (half.fx, half.fy, half.cx, half.cy) == pytest.approx(
        (259.43, 259.73, 141.79, 103.87), abs=0.01
    )
    assert nyud_metadata.get_intrinsics((288, 384)).fx == pytest.approx(0.6 * 518.857901)


@pytest.mark.skipif(
    not (SHARED / "nyud").is_dir(),
    reason=f"no real NYUD-v2 at {SHARED / 'nyud'}; set DENSEMTL_DATA",
)
def test_real_dataset() -> None:
    root = SHARED / "nyud"
    assert [len(NYUDDataset(split, [], root=root)) for split in ("train", "val")] == [795, 654]
    dataset = NYUDDataset("val", TASKS, root=root, val_split_name="mini_val")
    for index in range(0, len(dataset), 30):
        targets = dataset[index].targets
        assert set(targets) == set(TASKS)
        assert 0.5 < np.nanmedian(targets["depth"]) < 8
        assert np.nanmean(targets["normals"][..., 2]) < -0.3
        assert 0.005 < targets["edge"].mean() < 0.2

"""PASCAL-Context in the layout of the archives, and with precomputed maps."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from densemtl.data import derived_labels
from densemtl.data.datasets.pascal_context import PascalContextDataset
from densemtl.data.datasets.pascal_context_metadata import LABELS_WITH_NORMALS, NAME_TO_PART
from densemtl.data.datasets.pascal_context_parts import read_human_parts
from densemtl.errors import DataError
from densemtl.types import IGNORE_INDEX
from tests.helpers import fake_datasets

TASKS = ["semseg", "human_parts", "edge", "saliency", "normals"]
SHARED = Path(os.environ.get("DENSEMTL_DATA", Path(__file__).parents[4] / "shared" / "data"))


def test_samples_of_the_archive_layout(tmp_path: Path) -> None:
    ids = fake_datasets.write_pascal_context(tmp_path)
    for split, own in (("train", ids[:2]), ("val", ids[2:])):
        dataset = PascalContextDataset(split, TASKS, root=tmp_path)
        assert list(dataset.ids) == own
        first, last = dataset[0], dataset[1]
        assert set(first.targets) == set(TASKS)
        assert set(last.targets) == set(TASKS) - {"human_parts"}, "no person in the image"
        assert all(target.shape[:2] == fake_datasets.SIZE for target in first.targets.values())
        for task, count in (("semseg", 21), ("human_parts", 7), ("edge", 2), ("saliency", 2)):
            assert first.targets[task].dtype == np.uint8
            assert set(np.unique(first.targets[task])) <= {*range(count), IGNORE_INDEX}


def test_labels_equal_the_written_values(tmp_path: Path) -> None:
    fake_datasets.write_pascal_context(tmp_path)
    targets = PascalContextDataset("train", TASKS, root=tmp_path)[0].targets
    scene = fake_datasets.FakeScene(0, fake_datasets.SIZE)
    classes, labels, salient = (
        scene.make_ids(21),
        scene.make_ids(200).astype(np.uint16) + 200,
        scene.make_ids(2),
    )
    np.testing.assert_array_equal(targets["semseg"][3:], classes[3:])
    assert (targets["semseg"][:3] == IGNORE_INDEX).all()
    np.testing.assert_array_equal(targets["saliency"], salient)
    np.testing.assert_array_equal(targets["human_parts"], np.array([1, 2, 3, 4, 5])[scene.blocks])
    valid = np.isin(labels, LABELS_WITH_NORMALS)
    valid[0, 0] = False
    np.testing.assert_array_equal(np.isfinite(targets["normals"]).all(-1), valid)
    np.testing.assert_allclose(targets["normals"][valid], scene.normals[valid], atol=8e-3)


def test_edges_are_derived_differently_for_each_split(tmp_path: Path) -> None:
    fake_datasets.write_pascal_context(tmp_path)
    for split, number, derive_edges in (
        ("train", 0, derived_labels.derive_laplacian_edges),
        ("val", 2, derived_labels.derive_region_edges),
    ):
        scene = fake_datasets.FakeScene(number, fake_datasets.SIZE)
        scene.make_ids(21)
        expected = derive_edges(scene.make_ids(200).astype(np.uint16) + 200)
        edge = PascalContextDataset(split, ["edge"], root=tmp_path)[0].targets["edge"]
        np.testing.assert_array_equal(edge, expected)


def test_semseg_falls_back_to_context_masks(tmp_path: Path) -> None:
    ids = fake_datasets.write_pascal_context(tmp_path)
    (tmp_path / "semseg" / "VOC12" / f"{ids[0]}.png").unlink()
    fake_datasets.write_image(
        tmp_path / "semseg" / "pascal-context" / f"{ids[0]}.png",
        np.full(fake_datasets.SIZE, 9, np.uint8),
    )
    fake_datasets.write_image(
        tmp_path / "semseg" / "pascal-context" / f"{ids[1]}.png",
        np.full(fake_datasets.SIZE, 9, np.uint8),
    )
    first, second = (
        PascalContextDataset("train", ["semseg"], root=tmp_path)[index] for index in (0, 1)
    )
    assert (first.targets["semseg"] == 9).all()
    assert not (second.targets["semseg"] == 9).all()


def test_precomputed_maps(tmp_path: Path) -> None:
    fake_datasets.write_pascal_ready_maps(tmp_path)
    targets = PascalContextDataset("train", ["semseg", "edge", "saliency"], root=tmp_path)[
        0
    ].targets
    scene = fake_datasets.FakeScene(0, fake_datasets.SIZE)
    np.testing.assert_array_equal(targets["edge"], scene.edge)
    scene.make_ids(21)
    np.testing.assert_array_equal(
        targets["saliency"], np.array([0, IGNORE_INDEX, 1])[scene.make_ids(3)]
    )
    with pytest.raises(DataError, match="no human_parts label for any of the 2 images"):
        PascalContextDataset("train", ["human_parts"], root=tmp_path)


def test_edge_val_split_name_limits_validation_edges(tmp_path: Path) -> None:
    """Training edges and labels of other tasks are not affected."""
    ids = fake_datasets.write_pascal_context(tmp_path)
    extra = tmp_path / "ImageSets" / "Edges" / "scored.txt"
    extra.parent.mkdir()
    extra.write_text(f"{ids[3]}\n2010_000001\n")
    options = {"root": tmp_path, "edge_val_split_name": "../Edges/scored"}
    val = PascalContextDataset("val", ["edge", "saliency"], **options)
    assert [set(val[index].targets) for index in (0, 1)] == [{"saliency"}, {"edge", "saliency"}]
    plain = PascalContextDataset("val", ["edge"], root=tmp_path)
    np.testing.assert_array_equal(val[1].targets["edge"], plain[1].targets["edge"])
    train = PascalContextDataset("train", ["edge"], **options)
    assert all(set(train[index].targets) == {"edge"} for index in (0, 1))
    assert len(val) == len(plain) == 2


def test_errors_in_the_edge_split_list(tmp_path: Path) -> None:
    ids = fake_datasets.write_pascal_context(tmp_path)
    options = {"root": tmp_path, "edge_val_split_name": "scored"}
    with pytest.raises(DataError, match=r"scored\.txt: cannot read the split list"):
        PascalContextDataset("val", ["edge"], **options)
    scored = tmp_path / "ImageSets" / "Context" / "scored.txt"
    scored.write_text("\n".join(ids[2:]))
    (tmp_path / "pascal-context" / "trainval" / f"{ids[2]}.mat").unlink()
    message = rf"scored\.txt: 1 of its 2 images have no edges, the first is '{ids[2]}'"
    with pytest.raises(DataError, match=message):
        PascalContextDataset("val", ["edge"], **options)
    scored.write_text("2010_000001")
    with pytest.raises(DataError, match=r"scored\.txt: no edge label for any of the 2 images"):
        PascalContextDataset("val", ["edge"], **options)


def test_people_without_annotated_parts_give_no_label(tmp_path: Path) -> None:
    """Only images with a part are evaluated, as for images without people."""
    ids = fake_datasets.write_pascal_context(tmp_path)
    scene = fake_datasets.FakeScene(0, fake_datasets.SIZE)
    record = fake_datasets.make_part_annotation(ids[0], scene, 15)
    for part in record["objects"]["parts"][0, 0].ravel():
        part["mask"] = np.zeros(fake_datasets.SIZE, np.uint8)
    fake_datasets.write_mat(tmp_path / "human_parts" / f"{ids[0]}.mat", anno=record)
    blank = np.zeros(fake_datasets.SIZE, np.uint8)
    fake_datasets.write_image(tmp_path / "human_parts" / f"{ids[1]}.png", blank)
    (tmp_path / "human_parts" / f"{ids[1]}.mat").unlink()
    train = PascalContextDataset("train", ["human_parts"], root=tmp_path)
    assert [set(train[index].targets) for index in (0, 1)] == [set(), set()]
    blank[0, 0] = 3
    fake_datasets.write_image(tmp_path / "human_parts" / f"{ids[1]}.png", blank)
    np.testing.assert_array_equal(train[1].targets["human_parts"], blank)


def test_parts_are_grouped_and_later_parts_cover_earlier_ones(tmp_path: Path) -> None:
    scene = fake_datasets.FakeScene(1, fake_datasets.SIZE)
    record = fake_datasets.make_part_annotation("a", scene, 15)
    fake_datasets.write_mat(tmp_path / "a.mat", anno=record)
    parts = read_human_parts(tmp_path / "a.mat")
    assert parts is not None
    np.testing.assert_array_equal(
        np.unique(parts), np.unique(np.array([1, 2, 3, 4, 5])[scene.blocks])
    )
    fake_datasets.write_mat(
        tmp_path / "b.mat", anno=fake_datasets.make_part_annotation("b", scene, 8)
    )
    assert read_human_parts(tmp_path / "b.mat") is None
    assert len(NAME_TO_PART) == 24
    assert set(NAME_TO_PART.values()) == set(range(1, 7))


def test_file_that_is_no_part_annotation_is_an_error(tmp_path: Path) -> None:
    fake_datasets.write_mat(tmp_path / "a.mat", other=np.zeros((2, 2)))
    with pytest.raises(DataError, match=r"a\.mat: not a PASCAL-Part annotation"):
        read_human_parts(tmp_path / "a.mat")


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no PASCAL-Context here.*data\.root"):
        PascalContextDataset("train", TASKS, root=tmp_path)
    ids = fake_datasets.write_pascal_context(tmp_path)
    with pytest.raises(DataError, match=r"none: no such folder; .*prepare_pascal_context"):
        PascalContextDataset("train", TASKS, root=tmp_path, derived_labels=tmp_path / "none")
    mask = tmp_path / "semseg" / "VOC12" / f"{ids[0]}.png"
    fake_datasets.write_image(mask, np.full(fake_datasets.SIZE, 21, np.uint8))
    with pytest.raises(DataError, match=r"VOC12/2008_000001\.png: class id 21"):
        PascalContextDataset("train", ["semseg"], root=tmp_path)[0]
    label_map = tmp_path / "pascal-context" / "trainval" / f"{ids[0]}.mat"
    fake_datasets.write_mat(label_map, LabelMap=np.ones((5, 5), np.uint16))
    for task in ("edge", "normals"):
        with pytest.raises(DataError, match=r"2008_000001\.mat: .*(size|5x5)"):
            PascalContextDataset("train", [task], root=tmp_path)[0]


def test_task_defaults() -> None:
    defaults = PascalContextDataset.task_defaults(root=Path())
    assert set(defaults) == set(TASKS)
    assert [len(defaults[task]["class_names"]) for task in ("semseg", "human_parts")] == [21, 7]
    assert defaults["edge"] == {"max_distance": 0.0075}


@pytest.mark.skipif(
    not (SHARED / "pascal").is_dir(),
    reason=f"no real PASCAL at {SHARED / 'pascal'}; set DENSEMTL_DATA",
)
def test_real_dataset() -> None:
    root = SHARED / "pascal"
    dataset = PascalContextDataset("train", ["semseg", "edge", "saliency"], root=root)
    assert len(dataset) == 200
    for index in range(0, 200, 40):
        sample = dataset[index]
        assert set(sample.targets) == {"semseg", "edge", "saliency"}
        np.testing.assert_array_equal(
            sample.targets["semseg"] == IGNORE_INDEX, sample.targets["saliency"] == IGNORE_INDEX
        )
    samples = "../Extra/pascal_part_samples"
    people = PascalContextDataset("train", ["human_parts"], root=root, train_split_name=samples)
    assert sum(bool(people[index].targets) for index in range(len(people))) == 8

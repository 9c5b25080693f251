"""Check of the data: statistics, errors and warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from densemtl.data.base import DenseDataset
from densemtl.data.check import DataCheck, check_data
from densemtl.data.label_statistics import collect_statistics, select_images
from densemtl.errors import DataError
from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.depth import Depth
from densemtl.types import Sample, Split

SEMSEG = Classification("semseg", class_names=["wall", "floor", "bed"])
BLOCKS = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 4, axis=0)
DEPTH = np.linspace(1, 4, 16, dtype=np.float32).reshape(4, 4)


class ArrayDataset(DenseDataset):
    """Split of given label maps; the image of id X is a color that depends on X."""

    def __init__(self, split: Split, labels: Mapping[str, Mapping[str, Any]]) -> None:
        super().__init__(split, ("semseg", "depth", "water"))
        self.ids, self._labels = tuple(labels), labels

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        targets = dict(self._labels[self.ids[index]])
        if "error" in targets:
            raise DataError(targets["error"])
        color = targets.pop("color", sum(self.ids[index].encode()) % 256)
        return Sample(np.full((4, 4, 3), color, np.uint8), targets, self.ids[index])


def check(task: Task, train: Any, val: Any = None) -> DataCheck:
    """Check a task with one label map per split."""
    train_set = ArrayDataset("train", {"a": {task.name: train}})
    val_set = ArrayDataset("val", {"b": {task.name: train if val is None else val}})
    return check_data(train_set, val_set, [task])


def list_texts(result: DataCheck) -> list[str]:
    """Return the texts of the warnings."""
    return [warning.text for warning in result.warnings]


def test_valid_data_has_no_warnings():
    for task, label in ((SEMSEG, BLOCKS), (Depth("depth"), DEPTH)):
        result = check(task, label)
        assert (result.errors, result.warnings) == ([], [])


def test_statistics_of_ids_and_values():
    depth = DEPTH.copy()
    depth[0] = np.nan
    dataset = ArrayDataset("train", {"a": {"semseg": BLOCKS, "depth": depth}, "b": {}})
    statistics = collect_statistics(dataset, [SEMSEG, Depth("depth")])
    semseg, values = statistics.tasks["semseg"], statistics.tasks["depth"]
    assert (statistics.images, statistics.examined, semseg.images) == (2, 2, 1)
    assert semseg.ignored_share == values.ignored_share == 0.25
    np.testing.assert_allclose(semseg.shares, [1 / 3, 1 / 3, 1 / 3])
    assert values.minimum == pytest.approx(depth[1, 0])
    assert values.maximum == 4
    assert values.medians == [pytest.approx(np.nanmedian(depth))]


@pytest.mark.parametrize("shards", [(), (5, 5)])
def test_selection_is_bounded_and_opens_few_shards(shards):
    dataset = ArrayDataset("train", {f"{index}": {} for index in range(10)})
    dataset.shard_sizes = shards
    assert select_images(dataset, 3) == ([0, 1, 2] if shards else [0, 3, 6])
    assert select_images(dataset, None) == select_images(dataset, 99) == list(range(10))


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        (SEMSEG, BLOCKS + 1, "the semseg label has ids above 2"),
        (SEMSEG, DEPTH, "the semseg label is HxW float32"),
        (Depth("depth"), -DEPTH, "negative depths"),
        (Depth("depth"), np.where(DEPTH > 3, np.inf, DEPTH), "infinite values"),
        (SEMSEG, np.full_like(BLOCKS, 255), "semseg: all pixels of all labels are ignored"),
        (Depth("depth"), DEPTH * np.nan, "depth: all pixels of all labels are ignored"),
    ],
)
def test_impossible_labels_are_errors(task, label, message):
    label = label.astype(np.uint8 if label.dtype == np.uint8 else np.float32)
    errors = check(task, label, BLOCKS if task is SEMSEG else DEPTH).errors
    assert len(errors) == 1
    assert message in errors[0]


def test_unreadable_and_missing_images_are_errors():
    train = ArrayDataset("train", {"a": {"error": "a.png: corrupt"}, "b": {"semseg": BLOCKS}})
    result = check_data(train, ArrayDataset("val", {}), [SEMSEG])
    assert result.errors == ["a.png: corrupt", "val: no images"]


@pytest.mark.parametrize(
    ("task", "label", "message"),
    [
        (SEMSEG, np.minimum(BLOCKS, 1), "1 of 3 classes never occur: bed"),
        (SEMSEG, np.ones_like(BLOCKS), "single class 'floor'"),
        (Binary("water"), np.zeros_like(BLOCKS), "single class 'negative'"),
        (SEMSEG, np.where(np.arange(16).reshape(4, 4) < 15, 255, BLOCKS * 0), "93.8% of the"),
        (SEMSEG, np.full_like(BLOCKS, 255), "metrics have no value"),
        (Depth("depth"), DEPTH * np.nan, "metrics have no value"),
        (Depth("depth"), DEPTH * 1000, "millimeters or centimeters"),
        (Depth("depth"), DEPTH * 100, "millimeters or centimeters"),
        (Depth("depth"), DEPTH / 1000, "normalized values or kilometers"),
        (Depth("depth"), np.maximum(DEPTH - 2, 0), "0 usually marks unknown depth"),
        (Depth("depth"), np.full_like(DEPTH, 2), "values are 2"),
    ],
)
def test_suspicious_labels_are_warnings(task, label, message):
    label = label.astype(np.uint8 if label.dtype != np.float32 else np.float32)
    good = {"semseg": BLOCKS, "depth": DEPTH, "water": (BLOCKS == 1).astype(np.uint8)}[task.name]
    warnings = list_texts(check(task, good, label))
    assert any(warning.startswith("val: ") and message in warning for warning in warnings)
    assert all(warning.startswith("val: ") for warning in warnings)


def test_absent_classes_are_reported_only_if_all_images_were_read():
    labels = {f"{index}": {"semseg": np.minimum(BLOCKS, index // 3)} for index in range(6)}
    dataset, other = ArrayDataset("train", labels), ArrayDataset("val", {"b": {"semseg": BLOCKS}})
    complete = check_data(dataset, other, [SEMSEG])
    assert any("1 of 3 classes never occur: bed" in warning for warning in list_texts(complete))
    partial = check_data(dataset, other, [SEMSEG], max_images=4)
    assert not any("never occur" in warning for warning in list_texts(partial))


def test_overlap_of_splits_by_name_and_by_content():
    label = {"semseg": BLOCKS}
    train = ArrayDataset("train", {"a": label, "b": label})
    same_name = check_data(train, ArrayDataset("val", {"b": label, "c": label}), [SEMSEG])
    assert list_texts(same_name) == [
        "1 of 2 images of val are in train by their name: b",
        "1 of 2 examined images of val have the content of an image of train: b = b",
    ]
    copy = ArrayDataset("val", {"c": {**label, "color": ord("a")}})
    assert list_texts(check_data(train, copy, [SEMSEG])) == [
        "1 of 1 examined images of val have the content of an image of train: c = a"
    ]


def test_equal_names_of_different_images_are_no_overlap():
    train = ArrayDataset("train", {"0": {"semseg": BLOCKS}})
    val = ArrayDataset("val", {"0": {"semseg": BLOCKS, "color": 7}})
    assert check_data(train, val, [SEMSEG]).warnings == []

"""Stored labels of teachers: types, sizes, stale files, and samples that they complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from densemtl.data.base import DenseDataset
from densemtl.data.memory_cache import InMemoryDataset
from densemtl.data.teacher_labels import FilledDataset, TeacherLabelStore
from densemtl.errors import DataError
from densemtl.types import Sample

SIZE = (6, 10)


class Images(DenseDataset):
    """Two images, of which only the first has a label."""

    ids = ("a", "b")
    version = "1"

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {"semseg": {"class_names": ["x", "y"]}}

    def __getitem__(self, index: int) -> Sample:
        targets = {} if index else {"semseg": np.full(SIZE, 255, np.uint8)}
        return Sample(np.zeros((*SIZE, 3), np.uint8), targets, self.ids[index])

    def get_sample_version(self, index: int) -> str:
        return self.version


@pytest.fixture
def dataset() -> Images:
    return Images("train", ["semseg", "depth"])


@pytest.fixture
def store(tmp_path: Path, dataset: Images) -> TeacherLabelStore:
    return TeacherLabelStore(tmp_path / "labels-1", dataset)


def make_normals(rng: np.random.Generator) -> NDArray[np.float32]:
    vectors = rng.normal(size=(*SIZE, 3))
    normals = (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)
    normals[0, 0] = np.nan
    return normals


def test_labels_keep_type_and_values(store: TeacherLabelStore, rng: np.random.Generator) -> None:
    labels = {
        "semseg": rng.integers(0, 256, SIZE).astype(np.uint8),
        "depth": rng.uniform(0.1, 10, SIZE).astype(np.float32),
        "height": rng.uniform(-1e5, 1e6, SIZE).astype(np.float32),  # too large for two bytes
        "normals": make_normals(rng),
    }
    store.save(0, labels, {"depth": 0.25})
    loaded = store.load(0, SIZE)
    assert list(loaded) == list(labels)
    for name, label in labels.items():
        assert loaded[name].dtype == label.dtype
        np.testing.assert_allclose(loaded[name], label, rtol=1e-3, atol=1e-6)
    assert np.array_equal(loaded["semseg"], labels["semseg"])
    assert np.array_equal(loaded["height"], labels["height"])
    assert store.load_shares(0) == {"depth": 0.25}


def test_small_labels_are_enlarged_by_nearest_neighbor(store: TeacherLabelStore) -> None:
    small = np.arange(6, dtype=np.uint8).reshape(2, 3)
    store.save(0, {"semseg": small}, {})
    expected = np.kron(small, np.ones((3, 4), np.uint8))
    assert np.array_equal(store.load(0, (6, 12))["semseg"], expected)
    assert np.array_equal(store.load(0, (1, 1))["semseg"], small[1:, 1:2])


def test_labels_of_a_changed_image_are_outdated(store: TeacherLabelStore, dataset: Images) -> None:
    assert not store.contains(0)
    store.save(0, {}, {})
    assert store.contains(0)
    dataset.version = "2"
    assert not store.contains(0)
    with pytest.raises(DataError, match=r"0000000\.npy: the labels of a teacher are missing, cor"):
        store.load(0, SIZE)


def test_memory_cache_keeps_the_versions_of_its_samples(dataset: Images) -> None:
    cache = InMemoryDataset(dataset, 0)
    dataset.version = "2"
    assert cache.get_sample_version(0) == "1"


def test_only_missing_labels_are_filled(store: TeacherLabelStore, dataset: Images) -> None:
    predicted = {"semseg": np.ones(SIZE, np.uint8)}
    for index in range(2):
        store.save(index, predicted, {})
    filled = FilledDataset(dataset, [store])
    assert (filled[0].targets["semseg"] == 255).all()  # a label, even if it is ignored
    assert (filled[1].targets["semseg"] == 1).all()
    assert filled[1].id == "b"
    other = TeacherLabelStore(store.folder.with_name("labels-2"), dataset)
    fingerprints = [dataset.fingerprint(), filled.fingerprint()]
    fingerprints.append(FilledDataset(dataset, [other]).fingerprint())
    assert len(set(fingerprints)) == 3

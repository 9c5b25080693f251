"""The cache in memory reads each sample once and returns the samples of its dataset."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.data.base import DenseDataset
from densemtl.data.memory_cache import InMemoryDataset
from densemtl.types import Sample


class CountingDataset(DenseDataset):
    """Dataset of four samples that counts how often each is read."""

    def __init__(self) -> None:
        super().__init__("val", ["semseg"])
        self.ids = ["a", "b", "c", "d"]
        self.reads = [0] * 4

    @classmethod
    def task_defaults(cls):
        return {}

    def __getitem__(self, index: int) -> Sample:
        self.reads[index] += 1
        image = np.full((3, 4, 3), index, np.uint8)
        return Sample(image, {"semseg": image[..., 0]}, self.ids[index])


class GeneratedDataset(CountingDataset):
    """The same samples, as if they were computed."""

    is_generated = True


@pytest.mark.parametrize("workers", [0, 1])
def test_cache_equals_its_dataset(workers):
    dataset = CountingDataset()
    cached = InMemoryDataset(dataset, workers)
    assert len(cached) == 4
    assert list(cached.ids) == dataset.ids
    assert cached.fingerprint() == dataset.fingerprint()
    assert (cached.split, cached.tasks) == ("val", ("semseg",))
    for index in (2, 0, 3, 2):
        assert cached[index].id == dataset.ids[index]
        assert cached[index].image.dtype == np.uint8
        np.testing.assert_array_equal(cached[index].targets["semseg"], np.full((3, 4), index))


def test_every_sample_of_files_is_read_once_at_construction():
    dataset = CountingDataset()
    cached = InMemoryDataset(dataset, num_workers=0)
    assert dataset.reads == [1, 1, 1, 1]
    _ = [cached[index] for index in (0, 1, 1, 3)]
    assert dataset.reads == [1, 1, 1, 1]


def test_without_workers_a_generated_sample_is_computed_once_when_it_is_first_used():
    dataset = GeneratedDataset()
    cached = InMemoryDataset(dataset, num_workers=0)
    assert dataset.reads == [0, 0, 0, 0]
    _ = [cached[index] for index in (0, 1, 1, 3)]
    assert dataset.reads == [1, 1, 0, 1]


def test_worker_processes_compute_all_samples_at_construction():
    dataset = GeneratedDataset()
    cached = InMemoryDataset(dataset, num_workers=1)
    assert [cached[index].id for index in range(4)] == dataset.ids
    assert dataset.reads == [0, 0, 0, 0]  # not in this process


def test_fingerprint_depends_on_split_and_ids():
    fingerprints = set()
    for split, ids in (("val", ["a", "b"]), ("val", ["b", "a"]), ("train", ["a", "b"])):
        dataset = CountingDataset()
        dataset.split, dataset.ids = split, ids
        fingerprints.add(dataset.fingerprint())
    assert len(fingerprints) == 3

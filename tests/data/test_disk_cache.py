"""The cache on disk returns the samples of its dataset and follows changes of its files."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from densemtl.data.datasets.nyud import NYUDDataset
from densemtl.data.disk_cache import MemmapCacheDataset
from densemtl.errors import OutputError
from densemtl.factory import build_dataset
from densemtl.types import Sample
from tests.helpers import fake_datasets
from tests.helpers.experiments import make_tiny_experiment

TASKS = ["semseg", "depth", "normals", "edge"]


@pytest.fixture
def dataset(tmp_path: Path) -> NYUDDataset:
    fake_datasets.write_nyud_png_depth(tmp_path / "nyud")
    return NYUDDataset("val", TASKS, root=tmp_path / "nyud")


def assert_same(one: Sample, other: Sample) -> None:
    assert (one.id, list(one.targets)) == (other.id, list(other.targets))
    np.testing.assert_array_equal(one.image, other.image)
    for task, target in one.targets.items():
        assert target.dtype == other.targets[task].dtype
        np.testing.assert_array_equal(target, other.targets[task])


def test_cache_equals_its_dataset_and_reads_it_once(dataset, tmp_path, monkeypatch):
    cached, plain = MemmapCacheDataset(dataset, tmp_path / "cache"), [dataset[0], dataset[1]]
    for sample, index in zip([*plain, *plain], (0, 1, 0, 1), strict=True):
        assert_same(cached[index], sample)
    assert "normals" not in cached[1].targets, "the last image has no normals"
    again = MemmapCacheDataset(dataset, tmp_path / "cache")
    monkeypatch.setattr(NYUDDataset, "__getitem__", lambda *_: pytest.fail("read again"))
    assert_same(again[0], plain[0])
    assert (again.fingerprint(), again.split) == (dataset.fingerprint(), "val")


def test_changes_to_a_cached_sample_stay_in_memory(dataset, tmp_path):
    cached = MemmapCacheDataset(dataset, tmp_path / "cache")
    before = cached[0].image.copy()
    cached[0].image[:] = 7
    np.testing.assert_array_equal(cached[0].image, before)


def test_changed_label_file_is_read_again(dataset, tmp_path):
    cached = MemmapCacheDataset(dataset, tmp_path / "cache")
    before = cached[0].targets["semseg"]
    file = tmp_path / "nyud" / "segmentation" / f"{dataset.ids[0]}.png"
    fake_datasets.write_image(file, np.full(fake_datasets.SIZE, 3, np.uint8))
    os.utime(file, ns=(1, 1))
    assert (cached[0].targets["semseg"] == 2).all()
    assert not (before == 2).all()


@pytest.mark.parametrize("num_bytes", [0, 40, 5000])
def test_broken_cache_file_is_rewritten(dataset, tmp_path, num_bytes):
    cached = MemmapCacheDataset(dataset, tmp_path / "cache")
    sample = cached[0]
    expected = Sample(sample.image.copy(), sample.targets, sample.id)
    [file] = (tmp_path / "cache").iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:num_bytes])
    assert_same(cached[0], expected)
    assert file.read_bytes() == whole


def test_unwritable_cache_is_an_error(dataset, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot be written .*loader\.cache_dir"):
        MemmapCacheDataset(dataset, tmp_path / "cache")[0]


def test_cache_folder_depends_on_what_changes_samples(tmp_path):
    folder = f"loader.cache_dir={tmp_path / 'cache'}"
    for extra in ("tasks=[semseg]", "tasks=[semseg, depth]", "data.size=[24, 48]"):
        experiment = make_tiny_experiment("loader.cache=disk", folder, extra)
        assert build_dataset(experiment, "val")[0].targets.keys() >= {"semseg"}
    assert len(list((tmp_path / "cache").iterdir())) == 3
    assert make_tiny_experiment("loader.cache=true").loader.cache == "memory"
    assert make_tiny_experiment("loader.cache=false").loader.cache == "none"

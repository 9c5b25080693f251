"""Shards: the same samples as the dataset that they were made of, near and far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.batching import EpochSampler
from densemtl.data.datasets.shards import ShardsDataset, write_shards
from densemtl.errors import DataError
from densemtl.factory import build_dataset, build_splits
from tests.helpers.experiments import make_tiny_experiment

TASKS = ["semseg", "depth", "normals"]
PLAIN = make_tiny_experiment(f"tasks={TASKS}", "data.train_images=10")
OFFERS = {"semseg": {"class_names": ["a", "b"]}, "depth": {}, "normals": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    splits = build_splits(PLAIN)
    write_shards([splits.train, splits.val], OFFERS, folder, 4, jpeg=False)
    return folder


def assert_same_samples(experiment: ExperimentConfig, found: ShardsDataset) -> None:
    plain = build_dataset(experiment, "train")
    assert list(found.ids) == list(plain.ids)
    for index in (9, 0, 5):
        one, other = plain[index], found[index]
        assert one.id == other.id
        np.testing.assert_array_equal(one.image, other.image)
        assert one.targets.keys() == other.targets.keys()
        for task, target in one.targets.items():
            assert target.dtype == other.targets[task].dtype
            np.testing.assert_array_equal(target, other.targets[task])


def test_shards_hold_the_same_samples(root):
    found = ShardsDataset("train", TASKS, root=str(root))
    assert_same_samples(PLAIN, found)
    assert found.shard_sizes == (4, 4, 2)
    assert ShardsDataset.task_defaults(root=str(root)) == OFFERS
    assert ShardsDataset("val", ["depth"], root=str(root))[3].targets.keys() == {"depth"}


def test_shards_from_far_are_fetched_once_and_few_are_kept(root, tmp_path):
    pytest.importorskip("webdataset", reason='needs pip install "densemtl[shards]"')
    found = ShardsDataset(
        "train", TASKS, root=f"file://{root}", cache_dir=tmp_path, max_cached_shards=2
    )
    assert_same_samples(PLAIN, found)
    assert len(list(tmp_path.rglob("*.tar"))) == 2


def test_others_read_them_too(root):
    webdataset = pytest.importorskip("webdataset", reason='needs pip install "densemtl[shards]"')
    shard = webdataset.WebDataset(str(root / "train-000000.tar"), shardshuffle=False)
    keys = {"image.png", "semseg.png", "depth.npy", "normals.npy"}
    assert [keys <= sample.keys() for sample in shard] == [True] * 4


def test_a_shard_that_is_missing_or_truncated_is_named(root, tmp_path):
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    found = ShardsDataset("train", TASKS, root=str(tmp_path))
    (tmp_path / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000002\.tar"):
        found[9]
    cut = tmp_path / "train-000000.tar"
    cut.write_bytes(cut.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        found[0]
    with pytest.raises(DataError, match=r"shards\.json: no index .*make_shards"):
        ShardsDataset("train", TASKS, root=str(tmp_path / "nowhere"))


def test_every_image_once_an_epoch_chunks_near_each_other():
    chunks = (4,) * 40
    sampler = EpochSampler(160, seed=3, shard_sizes=chunks)
    orders = []
    for sampler.epoch in (0, 1):
        orders.append([index for _, index in sampler])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(160))
    assert orders[0] != orders[1]
    for start in range(0, 160, 32):
        assert len({index // 4 for index in orders[0][start : start + 32]}) == 8
    sampler.start_index = 100
    assert [index for _, index in sampler] == orders[1][100:]


@pytest.mark.parametrize(
    "place", ["pipe:touch {} #://x", "sftp://host/x", "http://host/../../x", "pipe://touch {}"]
)
def test_a_root_runs_no_command_and_leads_nowhere_else(tmp_path, place):
    """A configuration may have come with a stranger's checkpoint."""
    root = place.format(tmp_path / "ran")
    with pytest.raises(DataError, match=r"^data\.root: .*give a folder, or file://"):
        ShardsDataset.task_defaults(root=root, cache_dir=tmp_path / "kept")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"offers": {}, "splits": {"train": [{"file": "../../x.tar", "ids": ["a"]}]}}', "file"),
        ('{"offers": {}, "splits": {"train": [{"file": "/etc/x.tar", "ids": ["a"]}]}}', "file"),
        ('{"offers": {}, "splits": {"train": [{"file": "x.tar"}]}}', "ids: must be given"),
        ('{"splits": {}}', "offers: must be given"),
        ("[" * 5000, "."),
        ("[]", "."),
        ('{"offers": {}, "splits": {}}', "lists no shard of 'train'"),
    ],
)
def test_an_index_lists_what_lies_beside_it(tmp_path, text, reason):
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(DataError, match=rf"shards\.json.*{reason}") as error:
        ShardsDataset("train", TASKS, root=str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_broken_array_in_a_shard_is_told(root, tmp_path):
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"NUMPY", b"NUMPX"))
    with pytest.raises(DataError, match=r"train-000000\.tar: an array in it is corrupt"):
        ShardsDataset("train", TASKS, root=str(tmp_path))[0]

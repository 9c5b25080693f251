"""Shards have the samples of the dataset that they were made from, in a folder and at a URL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.datasets.shards import ShardsDataset, write_shards
from densemtl.data.samplers import EpochSampler
from densemtl.errors import DataError
from densemtl.factory import build_dataset, build_splits
from tests.helpers.experiments import make_tiny_experiment

TASKS = ["semseg", "depth", "normals"]
PLAIN = make_tiny_experiment(f"tasks={TASKS}", "data.train_images=10")
TASK_DEFAULTS = {"semseg": {"class_names": ["a", "b"]}, "depth": {}, "normals": {}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    splits = build_splits(PLAIN)
    write_shards([splits.train, splits.val], TASK_DEFAULTS, folder, 4, jpeg=False)
    return folder


def assert_same_samples(experiment: ExperimentConfig, shards: ShardsDataset) -> None:
    plain = build_dataset(experiment, "train")
    assert list(shards.ids) == list(plain.ids)
    for index in (9, 0, 5):
        one, other = plain[index], shards[index]
        assert one.id == other.id
        np.testing.assert_array_equal(one.image, other.image)
        assert one.targets.keys() == other.targets.keys()
        for task, target in one.targets.items():
            assert target.dtype == other.targets[task].dtype
            np.testing.assert_array_equal(target, other.targets[task])


def test_shards_equal_their_dataset(root):
    dataset = ShardsDataset("train", TASKS, root=str(root))
    assert_same_samples(PLAIN, dataset)
    assert dataset.shard_sizes == (4, 4, 2)
    assert ShardsDataset.task_defaults(root=str(root)) == TASK_DEFAULTS
    assert ShardsDataset("val", ["depth"], root=str(root))[3].targets.keys() == {"depth"}


def test_shards_at_a_url_are_downloaded_and_evicted(root, tmp_path):
    pytest.importorskip("webdataset", reason='needs pip install "densemtl[shards]"')
    dataset = ShardsDataset(
        "train", TASKS, root=f"file://{root}", cache_dir=tmp_path, max_cached_shards=2
    )
    assert_same_samples(PLAIN, dataset)
    assert len(list(tmp_path.rglob("*.tar"))) == 2


def test_webdataset_reads_the_shards(root):
    webdataset = pytest.importorskip("webdataset", reason='needs pip install "densemtl[shards]"')
    shard = webdataset.WebDataset(str(root / "train-000000.tar"), shardshuffle=False)
    keys = {"image.png", "semseg.png", "depth.npy", "normals.npy"}
    assert [keys <= sample.keys() for sample in shard] == [True] * 4


def test_error_names_the_missing_or_truncated_shard(root, tmp_path):
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    dataset = ShardsDataset("train", TASKS, root=str(tmp_path))
    (tmp_path / "train-000002.tar").unlink()
    with pytest.raises(DataError, match=r"train-000002\.tar"):
        dataset[9]
    truncated = tmp_path / "train-000000.tar"
    truncated.write_bytes(truncated.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        dataset[0]
    with pytest.raises(DataError, match=r"shards\.json: no index .*make_shards"):
        ShardsDataset("train", TASKS, root=str(tmp_path / "nowhere"))


def test_sampler_yields_each_image_once_from_groups_of_shards():
    sampler = EpochSampler(160, seed=3, shard_sizes=(4,) * 40)
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
    "url",
    [
        "pipe:touch {} #://x",
        "sftp://host/x",
        "http://host/../../x",
        "pipe://touch {}",
        "http://x/$(touch {})",
        "http://x/`y`",
        "http://x/a b",
        "gs://{{a,b}}/x",
        "https://x/'y",
        "https://x/\n",
        "https://x/;touch {}",
        "https://x/é",
        "https://",
    ],
)
def test_root_cannot_run_commands_or_leave_the_cache(tmp_path, url):
    """A configuration may come from an untrusted checkpoint."""
    root = url.format(tmp_path / "ran")
    with pytest.raises(DataError, match=r"^data\.root: .*give a folder, or file://"):
        ShardsDataset.task_defaults(root=root, cache_dir=tmp_path / "cache")
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
def test_invalid_index_is_an_error_of_one_line(tmp_path, text, reason):
    (tmp_path / "shards.json").write_text(text)
    with pytest.raises(DataError, match=rf"shards\.json.*{reason}") as error:
        ShardsDataset("train", TASKS, root=str(tmp_path))
    assert "\n" not in str(error.value)


def test_missing_relative_root_names_the_folder_it_starts_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = rf"shards/shards\.json: no index of shards in {tmp_path}; create shards by"
    with pytest.raises(DataError, match=message):
        ShardsDataset("train", TASKS, root="shards")


def test_corrupt_array_in_a_shard_is_an_error(root, tmp_path):
    for file in root.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = tmp_path / "train-000000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"NUMPY", b"NUMPX"))
    with pytest.raises(DataError, match=r"train-000000\.tar: an array in it is corrupt"):
        ShardsDataset("train", TASKS, root=str(tmp_path))[0]

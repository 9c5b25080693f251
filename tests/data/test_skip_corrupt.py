"""Corrupt samples are skipped, reported and counted; training uses the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.base import DenseDataset
from densemtl.data.skip_corrupt import SkipCorruptDataset
from densemtl.errors import DataError
from densemtl.factory import build_dataset, build_splits
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from densemtl.types import Sample
from tests.helpers import fake_datasets
from tests.helpers.experiments import make_tiny_experiment


def experiment(root: Path, *overrides: str) -> ExperimentConfig:
    loader = "loader={batch_size: 1, num_workers: 0, on_corrupt: skip}"
    return make_tiny_experiment(
        f"data={{name: nyud, root: {root}}}", loader, "train.epochs=1", *overrides
    )


def damage(root: Path, *names: str) -> None:
    for name in names:
        file = root / "images" / f"{name}.jpg"
        file.write_bytes(file.read_bytes()[:-200])


@pytest.mark.parametrize("cache", ["none", "memory"])
def test_corrupt_samples_are_skipped_and_counted(
    tmp_path: Path, cache: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "nyud"
    ids = fake_datasets.write_nyud_survey(root, count=6)
    damage(root, ids[1], ids[5])
    train_experiment(experiment(root, f"loader.cache={cache}"), tmp_path / "run", "cpu")
    output = capsys.readouterr().out
    assert f"skipped: {root}/images/{ids[1]}.jpg: truncated" in output
    assert "skipped 1 of the 3 images of 'train', which cannot be read" in output
    assert "skipped 1 of the 3 images of 'val', which cannot be read" in output
    assert load_results(tmp_path / "run").images == 2


def test_intact_dataset_is_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_datasets.write_nyud_survey(tmp_path)
    skipping = experiment(tmp_path)
    stopping = experiment(tmp_path, "loader.on_corrupt=stop")
    pairs = [(build_dataset(each, "train")) for each in (skipping, stopping)]
    assert pairs[0].ids == pairs[1].ids
    assert pairs[0].fingerprint() == pairs[1].fingerprint()
    assert pairs[0].get_sample_version(1) == pairs[1].get_sample_version(1)
    assert skipping.compute_config_hash() == stopping.compute_config_hash()
    assert capsys.readouterr().out == ""


def test_fingerprint_changes_if_samples_are_skipped(tmp_path: Path) -> None:
    ids = fake_datasets.write_nyud_survey(tmp_path)
    before = build_splits(experiment(tmp_path)).val.fingerprint()
    damage(tmp_path, ids[3])
    assert build_splits(experiment(tmp_path)).val.fingerprint() != before


def test_no_readable_sample_is_an_error(tmp_path: Path) -> None:
    damage(tmp_path, *fake_datasets.write_nyud_survey(tmp_path))
    with pytest.raises(DataError, match=r"0001\.jpg: truncated.*none of the 2 images of 'train'"):
        build_splits(experiment(tmp_path))


class CorruptShards(DenseDataset):
    """Seven samples in shards of 3, 1 and 3; three of them are corrupt."""

    ids = tuple("abcdefg")
    shard_sizes = (3, 1, 3)

    @classmethod
    def task_defaults(cls, **options: Any) -> dict[str, dict[str, Any]]:
        return {}

    def __getitem__(self, index: int) -> Sample:
        if index in (1, 3, 6):
            raise DataError(f"{index}: broken")
        return Sample(None, {}, self.ids[index])


def test_shard_sizes_count_readable_samples() -> None:
    readable = SkipCorruptDataset(CorruptShards("train", []), num_workers=0)
    assert readable.ids == ("a", "c", "e", "f")
    assert readable.shard_sizes == (2, 2)
    assert [readable[index].id for index in range(4)] == list(readable.ids)

"""Errors in worker processes are raised as in the main process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import Dataset

from densemtl.data.dataloader import ErrorForwardingDataLoader
from densemtl.errors import DataError, WorkerError
from densemtl.runs.train_run import train_experiment
from tests.helpers import fake_datasets
from tests.helpers.experiments import make_tiny_experiment


def break_jpeg(root: Path) -> str:
    file = root / "images" / "0003.jpg"
    file.write_bytes(file.read_bytes()[:-200])
    return r"images/0003\.jpg: truncated"


def break_size(root: Path) -> str:
    file = root / "segmentation" / "0003.png"
    cv2.imwrite(str(file), np.ones((20, 30), np.uint8))
    return r"segmentation/0003\.png: the label is 20x30 pixels, its image "


def break_class(root: Path) -> str:
    file = root / "segmentation" / "0003.png"
    labels = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
    labels[0, 0] = 41
    cv2.imwrite(str(file), labels)
    return r"segmentation/0003\.png: class id 41 "


def break_depth(root: Path) -> str:
    file = root / "depth" / "0003.npy"
    np.save(file, np.full_like(np.load(file), np.nan))
    return r"depth/0003\.npy: no pixel has a depth"


def break_list(root: Path) -> str:
    (root / "gt_sets" / "train.txt").write_text("\n")
    return r"gt_sets/train\.txt: the split list is empty"


class FatalDataset(Dataset[int]):
    """Dataset whose fourth item kills the reading process, as a system out of memory does."""

    def __getitem__(self, index: int) -> int:
        if index == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return index

    def __len__(self) -> int:
        return 8


def test_killed_worker_is_reported_in_one_line() -> None:
    with pytest.raises(WorkerError, match=r"killed.*decrease loader\.num_workers") as error:
        list(ErrorForwardingDataLoader(FatalDataset(), sum, batch_size=2, num_workers=1))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("cache", ["false", "true"])
@pytest.mark.parametrize("broken", [break_jpeg, break_size, break_class, break_depth, break_list])
def test_broken_file_is_reported_in_one_line(
    tmp_path: Path, broken: object, workers: int, cache: str
) -> None:
    root = tmp_path / "nyud"
    ids = fake_datasets.write_nyud_survey(root)
    assert "0003" in ids
    for split in ("train", "val"):
        (root / "gt_sets" / f"{split}.txt").write_text("\n".join(ids))
    message = broken(root)  # type: ignore[operator]
    loader = f"loader={{batch_size: 1, num_workers: {workers}, cache: {cache}}}"
    experiment = make_tiny_experiment(
        f"data={{name: nyud, root: {root}}}", loader, "train.epochs=1"
    )
    with pytest.raises(DataError, match=message) as error:
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert len(str(error.value).splitlines()) == 1

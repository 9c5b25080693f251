"""Configurations of public datasets in configs/folder, on fakes of their layouts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.data.check import check_data
from densemtl.errors import DataError
from densemtl.factory import (
    build_dataset,
    build_model,
    build_splits,
    build_tasks,
    build_train_loader,
)
from densemtl.types import IGNORE_INDEX, Sample
from tests.helpers.fake_archives import ARCHIVES
from tests.helpers.fake_datasets import SIZE, FakeScene, write_image

CONFIGS = Path(__file__).parents[3] / "configs" / "folder"
SMALL = [
    "backbone={name: test_resnet, pretrained: false}",
    "loader={batch_size: 2, num_workers: 0}",
    "input.size=[32, 64]",
]


def load(name: str, root: Path, *overrides: str) -> ExperimentConfig:
    ARCHIVES[name](root)
    return load_experiment(CONFIGS / f"{name}.yaml", [*SMALL, f"data.root={root}", *overrides])


def read(name: str, root: Path) -> Sample:
    return build_dataset(load(name, root), "train")[0]


def test_every_configuration_has_a_fake() -> None:
    files = {file.stem for file in CONFIGS.glob("*.yaml")}
    assert files == {*ARCHIVES, "base", "example"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_all_labels_of_both_splits_are_valid(name: str, tmp_path: Path) -> None:
    experiment = load(name, tmp_path)
    splits, tasks = build_splits(experiment), build_tasks(experiment)
    assert (len(splits.train), len(splits.val)) == (2, 2)
    check = check_data(splits.train, splits.val, tasks)
    assert check.errors == []
    for task in tasks:
        entry = check.train.tasks[task.name]
        assert entry.images == 2
        if name != "nyuv2_mtan":  # its classes are random
            assert entry.counts.all(), f"a class of {task.name} does not occur"
    batch = next(iter(build_train_loader(experiment, splits.train, tasks, pin_memory=False)))
    assert set(batch.targets) == set(experiment.list_task_names())
    logits = build_model(experiment, tasks).eval()(batch.image).logits
    assert set(logits) == set(batch.targets)


def test_depth_of_cityscapes_is_in_meters(tmp_path: Path) -> None:
    sample = read("cityscapes", tmp_path)
    depth, expected = sample.targets["depth"], 10 * FakeScene(0, SIZE).depth
    assert np.isnan(depth[0, 0])
    np.testing.assert_allclose(depth[1:], expected[1:], rtol=1e-3)
    semseg = sample.targets["semseg"].reshape(-1)[:34]
    assert (semseg[7], semseg[8], semseg[33], semseg[0]) == (0, 1, 18, IGNORE_INDEX)


def test_depth_of_taskonomy_is_in_meters(tmp_path: Path) -> None:
    sample = read("taskonomy", tmp_path)
    depth, scene = sample.targets["depth"], FakeScene(0, SIZE)
    assert np.isnan(depth[0, 0])
    np.testing.assert_allclose(depth[1:], scene.depth[1:], atol=1 / 512)
    np.testing.assert_allclose(sample.targets["edge_texture"], scene.edge, atol=1e-4)


def test_depth_of_scannet_is_resized(tmp_path: Path) -> None:
    sample = read("scannet", tmp_path)
    assert sample.id == "scene0000_00/000000"
    depth = sample.targets["depth"]
    assert depth.shape == SIZE
    np.testing.assert_array_equal(depth[2::2, 2::2], depth[3::2, 3::2])
    same_size = load("scannet", tmp_path, "data.labels.depth.resize=false")
    with pytest.raises(DataError, match="the label is 24x32 pixels, its image 48x64"):
        build_dataset(same_size, "train")[0]


def test_depth_of_another_shape_is_not_resized(tmp_path: Path) -> None:
    experiment = load("scannet", tmp_path)
    for file in tmp_path.rglob("depth/*.png"):
        write_image(file, np.full((24, 30), 2000, np.uint16))
    with pytest.raises(DataError, match="the label is 24x30 pixels, its image 48x64"):
        build_dataset(experiment, "train")[0]


def test_scene_that_does_not_exist_is_reported(tmp_path: Path) -> None:
    experiment = load("scannet", tmp_path)
    with (tmp_path / "scannetv2_train.txt").open("a", encoding="utf-8") as file:
        file.write("scene0999_00\n")
    with pytest.raises(DataError, match=r"1 of its 3 images have no file.*scene0999_00"):
        build_dataset(experiment, "train")

"""Loaders: order of samples, reproducible randomness, each image at most once per epoch."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from densemtl import registry
from densemtl.config.sections import AugmentConfig, ColorJitterConfig
from densemtl.data.base import DenseDataset
from densemtl.data.batching import Augmentation, EvalDataset, TrainDataset
from densemtl.data.loaders import make_eval_loader, make_train_loader
from densemtl.errors import DataError
from densemtl.ops.layouts import to_tensor
from densemtl.ops.lazy_upsampling import LazyLogits
from densemtl.transforms.albumentations import AlbumentationsTransform
from densemtl.transforms.color_jitter import AffineColorJitter
from densemtl.transforms.random_geometry import RandomGeometry
from densemtl.types import IGNORE_INDEX, Batch, Sample

SIZE = (16, 24)
SETTINGS = AugmentConfig(scale_range=(0.8, 1.6), crop="random", max_rotation=10)


class Rooms(DenseDataset):
    """Random samples of three sizes; every second has depth, every third has normals."""

    def __init__(self, count: int = 10, sizes=((16, 24), (12, 20), (14, 14))) -> None:
        super().__init__("train", ["semseg", "depth", "normals"])
        self.ids = [f"room{index}" for index in range(count)]
        self.sizes = sizes

    @classmethod
    def task_defaults(cls):
        return {}

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng(index)
        size = self.sizes[index % len(self.sizes)]
        targets = {"semseg": rng.integers(0, 3, size).astype(np.uint8)}
        if index % 2 == 0:
            targets["depth"] = rng.uniform(1, 9, size).astype(np.float32)
        if index % 3 == 0:
            targets["normals"] = rng.normal(size=(*size, 3)).astype(np.float32)
        image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
        return Sample(image, targets, self.ids[index])


@pytest.fixture
def tasks(make_task):
    return [make_task(name) for name in ("semseg", "depth", "normals")]


def train(tasks, workers=0, count=10, batch_size=3, seed=7):
    image_transforms = [
        AffineColorJitter(ColorJitterConfig()),
        AlbumentationsTransform([{"name": "GaussNoise", "p": 0.5}]),
    ]
    augmentations = [Augmentation(RandomGeometry(SETTINGS), image_transforms)]
    dataset = TrainDataset(Rooms(count), tasks, SIZE, "resize", augmentations, seed)
    return make_train_loader(dataset, batch_size, workers)


def epoch(loader, number: int, start_index: int = 0) -> list[Batch]:
    loader.sampler.epoch, loader.sampler.start_index = number, start_index
    return list(loader)


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert [batch.ids for batch in first] == [batch.ids for batch in second]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.image, other.image)
        for task, target in one.targets.items():
            torch.testing.assert_close(target, other.targets[task], rtol=0, atol=0, equal_nan=True)


def test_batches_do_not_depend_on_the_number_of_workers(tasks):
    alone, two = train(tasks), train(tasks, workers=2)
    for number in (0, 1):
        assert_same(epoch(alone, number), epoch(two, number))


def test_epoch_resumed_in_the_middle_has_the_same_batches(tasks):
    loader = train(tasks, batch_size=2)
    whole = epoch(loader, 3)
    assert len(whole) == 5
    rest = epoch(loader, 3, start_index=3 * 2)
    assert len(rest) == 2
    assert_same(rest, whole[3:])


def test_epochs_and_seeds_differ(tasks):
    loader = train(tasks, batch_size=5)
    orders = [[name for batch in epoch(loader, number) for name in batch.ids] for number in (0, 1)]
    assert orders[0] != orders[1]
    assert [
        name for batch in epoch(train(tasks, batch_size=5, seed=8), 0) for name in batch.ids
    ] != (orders[0])
    dataset = loader.dataset
    assert not np.array_equal(dataset[0, 4][0].image, dataset[1, 4][0].image)


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (10, 3), (4, 4)])
def test_epoch_has_full_batches_of_distinct_images(tasks, count, batch_size):
    batches = epoch(train(tasks, count=count, batch_size=batch_size), 0)
    seen = [name for batch in batches for name in batch.ids]
    assert {len(batch) for batch in batches} == {batch_size}
    assert len(seen) == len(set(seen)) == count // batch_size * batch_size


def test_training_batches_have_one_size_and_documented_types(tasks):
    for batch in epoch(train(tasks), 0):
        assert batch.image.shape == (3, 3, *SIZE)
        assert batch.image.dtype == torch.uint8
        assert {name: (target.shape, target.dtype) for name, target in batch.targets.items()} == {
            "semseg": ((3, *SIZE), torch.uint8),
            "depth": ((3, 1, *SIZE), torch.float32),
            "normals": ((3, 3, *SIZE), torch.float32),
        }
        assert {frame.box for frame in batch.placements} == {(0, 0, *SIZE)}


def has_label(target: Tensor) -> bool:
    return bool(target.isfinite().any())


def test_missing_labels_are_ignored_pixels_only(tasks):
    rows = [
        (
            int(name.removeprefix("room")),
            {task: target[row] for task, target in batch.targets.items()},
        )
        for batch in epoch(train(tasks, batch_size=5), 0)
        for row, name in enumerate(batch.ids)
    ]
    assert len(rows) == 10
    for index, targets in rows:
        assert (targets["semseg"] != IGNORE_INDEX).any()
        assert has_label(targets["depth"]) == (index % 2 == 0)
        assert has_label(targets["normals"]) == (index % 3 == 0)


def test_fewer_images_than_a_batch_is_an_error(tasks):
    with pytest.raises(DataError, match="2 training images do not fill one batch of 3"):
        train(tasks, count=2)


@pytest.mark.parametrize(
    ("name", "kind", "options", "message"),
    [
        (
            "semseg",
            "classification",
            {"class_names": ["a", "b"]},
            r"has ids above 1 other than 255",
        ),
        ("semseg", "binary", {}, r"has ids above 1 other than 255"),
        ("semseg", "depth", {}, r"is HxW uint8, the task takes HxW float32"),
        ("depth", "binary", {}, r"is HxW float32, the task takes HxW uint8"),
        ("normals", "direction", {"channels": 2}, r"is HxWx3 float32, the task takes HxWx2 fl"),
    ],
)
def test_label_that_does_not_fit_its_task_is_an_error(name, kind, options, message):
    task = registry.create("tasks", kind, name, options=options)
    for loader in (
        train([task]),
        make_eval_loader(EvalDataset(Rooms(), SIZE, "resize"), [task], 2, 0),
    ):
        with pytest.raises(DataError, match=rf"^image room\d+: the label of '{name}' {message}"):
            list(loader)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fit", ["resize", "pad"])
def test_evaluation_yields_each_image_once_with_original_labels(tasks, workers, fit):
    dataset = Rooms(7)
    loader = make_eval_loader(EvalDataset(dataset, SIZE, fit), tasks, 4, workers)
    batches = list(loader)
    assert [name for batch in batches for name in batch.ids] == dataset.ids
    index = 0
    for batch in batches:
        assert batch.image.shape == (len(batch), 3, *SIZE)
        for row, frame in enumerate(batch.placements):
            height, width = frame.size
            semseg = batch.targets["semseg"][row]
            np.testing.assert_array_equal(semseg[:height, :width], dataset[index].targets["semseg"])
            assert (semseg[height:] == IGNORE_INDEX).all()
            assert (semseg[:, width:] == IGNORE_INDEX).all()
            assert has_label(batch.targets["depth"][row]) == (index % 2 == 0)
            index += 1


def test_padding_is_reverted_exactly(tasks):
    dataset = Rooms(3)
    batch = next(iter(make_eval_loader(EvalDataset(dataset, SIZE, "pad"), tasks, 3, 0)))
    for row, frame in enumerate(batch.placements):
        restored = (
            LazyLogits.from_placement(batch.image[row : row + 1], frame)
            .upsample()[0]
            .permute(1, 2, 0)
        )
        np.testing.assert_array_equal(restored, dataset[row].image)


def test_image_larger_than_the_padded_input_is_an_error(tasks):
    dataset = EvalDataset(Rooms(sizes=((17, 24),)), SIZE, "pad")
    with pytest.raises(DataError, match=r"room0 is 17x24, larger than the padded input 16x24"):
        dataset[0]


def test_batch_moves_all_tensors_to_a_device(tasks):
    batch = next(iter(train(tasks)))
    moved = batch.to(torch.device("meta"))
    assert moved.image.is_meta
    assert all(target.is_meta for target in moved.targets.values())
    assert (moved.ids, moved.placements) == (batch.ids, batch.placements)
    assert {field.name for field in dataclasses.fields(batch)} == {
        "image",
        "targets",
        "ids",
        "placements",
        "features",
    }


def test_to_tensor_puts_channels_first():
    assert to_tensor(np.zeros((2, 3, 4), np.uint8)).shape == (2, 3, 4)
    assert to_tensor(np.zeros((2, 3, 4), np.float32)).shape == (2, 1, 3, 4)
    assert to_tensor(np.zeros((2, 3, 4, 5), np.float32)).shape == (2, 5, 3, 4)

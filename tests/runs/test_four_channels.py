"""A network for images of four channels, from the check of the data to its export."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import densemtl
from densemtl.commands import check_data, demo, export, make_shards
from densemtl.config.experiment import load_experiment
from densemtl.engine.loading import load_trained_model
from densemtl.errors import ConfigError, DataError, ModelError
from densemtl.export import exporter
from densemtl.export.wrapper import ExportWrapper
from densemtl.factory import build_dataset, build_model, build_tasks
from tests.helpers.experiments import TINY_CONFIG
from tests.helpers.fake_datasets import FakeScene, write_image

SIZE = (32, 40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write RGB and 16-bit depth as input, masks as labels, and the configuration."""
    root = tmp_path_factory.mktemp("four")
    for number in range(8):
        scene, name = FakeScene(number, (30, 44)), f"{number}.png"
        write_image(root / "color" / name, scene.image)
        write_image(root / "depth" / name, (10_000 * scene.depth).astype(np.uint16))
        write_image(root / "masks" / name, scene.make_ids(3))
    labels = {"semseg": {"files": "masks", "class_names": ["a", "b", "c"]}}
    images = {"images": ["color", "depth"], "channels": 4, "rgb_channels": [0, 1, 2]}
    data = {"name": "folder", "root": str(root), **images, "labels": labels}
    augment = {"color_jitter": {}, "max_rotation": 10, "scale_range": [1, 1.5]}
    config: dict[str, Any] = {**TINY_CONFIG, "tasks": ["semseg"], "data": data, "augment": augment}
    config["train"] = {**TINY_CONFIG["train"], "epochs": 1, "visualize_every": 1}  # type: ignore[dict-item]
    (root / "four.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def overrides(folder: Path) -> list[str]:
    """Return the overrides that the check of the data prints."""
    output = StringIO()
    with redirect_stdout(output):
        check_data.main([str(folder / "four.yaml"), "--output", str(folder / "samples.png")])
    return [match[0] for match in re.finditer(r"backbone\.\w+=\[[^]]*\]", output.getvalue())]


@pytest.fixture(scope="module")
def run(folder: Path, overrides: list[str]) -> Path:
    densemtl.train(
        folder / "four.yaml",
        overrides,
        output=folder / "run",
    )
    return folder / "run"


def test_check_measures_mean_and_std(folder: Path, overrides: list[str]) -> None:
    dataset = build_dataset(load_experiment(folder / "four.yaml"), "train")
    pixels = np.concatenate([dataset[index].image.reshape(-1, 4) for index in range(len(dataset))])
    expected = [pixels.mean(axis=0) / 255, pixels.std(axis=0) / 255]
    assert [pair.partition("=")[0] for pair in overrides] == ["backbone.mean", "backbone.std"]
    for pair, values in zip(overrides, expected, strict=True):
        np.testing.assert_allclose(yaml.safe_load(pair.partition("=")[2]), values, rtol=1e-3)
    assert (folder / "samples.png").is_file()


def test_mean_and_std_are_required(folder: Path) -> None:
    experiment = load_experiment(folder / "four.yaml")
    with pytest.raises(ModelError, match=r"backbone\.mean: must be given for images of 4 channels"):
        build_model(experiment, build_tasks(experiment))


def test_channels_of_the_backbone_follow_from_the_data(folder: Path, overrides: list[str]) -> None:
    experiment = load_experiment(folder / "four.yaml", [*overrides, "backbone.in_chans=5"])
    with pytest.raises(ConfigError, match=r"backbone\.in_chans: 5, but images have 4 channels"):
        build_model(experiment, build_tasks(experiment))


def test_predictor_takes_arrays_of_four_channels(folder: Path, run: Path) -> None:
    predictor = densemtl.Predictor.from_run(run)
    dataset = build_dataset(load_experiment(folder / "four.yaml"), "val")
    image = dataset[0].image
    expected = predictor.predict_sample(image)["semseg"]
    assert expected.shape == (30, 44)
    np.testing.assert_array_equal(predictor(image / 255)["semseg"], expected)
    augmented = densemtl.Predictor.from_run(run, flip=True, scales=(1, 1.5), tile=(32, 32))
    assert augmented(image / 255)["semseg"].shape == (30, 44)
    with pytest.raises(DataError, match=r"image: 3 channels, but the model takes 4; pass an arr"):
        predictor(image[..., :3])
    with pytest.raises(DataError, match=r"0\.png: 3 channels, but the model takes 4"):
        predictor(folder / "color" / "0.png")


def test_demo_and_shards_are_one_line(folder: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match="images of 4 channels, and the demo shows RGB images"):
        demo.main([str(run), str(folder / "color"), "--output", str(folder / "demo")])
    assert not (folder / "demo").exists()
    with pytest.raises(DataError, match="4 channels of float32: shards hold 8-bit RGB images"):
        make_shards.main([str(folder / "four.yaml"), "--output", str(folder / "shards")])


def test_export_compares_images_of_four_channels(folder: Path, run: Path) -> None:
    loaded = load_trained_model(run)
    network = ExportWrapper(loaded.model, loaded.tasks).eval()
    images = export.load_comparison_images(loaded, None, 2)
    batch = exporter.make_batch(network, images, (64, 96))
    assert (batch.shape, batch.dtype) == ((2, 4, 64, 96), torch.float32)
    assert network(batch)[0].shape == (2, 64, 96)
    with pytest.raises(DataError, match="3 channels, but the model takes 4"):
        export.load_comparison_images(loaded, folder / "color", 2)

"""Predictor: equality with evaluation, test-time augmentation, tiling and options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import densemtl
from densemtl import Predictor
from densemtl.config.sections import InputConfig
from densemtl.errors import ConfigError, UserError
from densemtl.factory import build_model, build_tasks
from densemtl.inference.predictor import PredictionMaps
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import stretch_to_size
from densemtl.types import Predictions, Size
from tests.helpers.experiments import make_tiny_experiment

SIZE = (37, 61)
RESIZE, PAD = (InputConfig(size=(32, 40), fit=fit) for fit in ("resize", "pad"))


def make_image(size: Size = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class PixelColors(nn.Module):
    """Model whose logits are the colors of pixels, independent of tiling and flipping."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Predictions:
        self.sizes.append(tuple(image.shape))
        color = image.float() / 255
        return Predictions({"semseg": color, "depth": color[:, :1], "edge": color[:, 1:2]})


class DepthFromWidth(nn.Module):
    """Model that predicts depth from the width of the bright bar, for a fixed focal length."""

    def forward(self, image: Tensor) -> Predictions:
        widths = (image[:, 0].float() > 127).sum(-1).amax(-1)
        depth = (100 / widths)[:, None, None, None].expand(-1, 1, *image.shape[-2:])
        return Predictions({"depth": depth})


class NormalsFromGradient(nn.Module):
    """Model whose normals point along x to brighter pixels, with a constant z component."""

    def forward(self, image: Tensor) -> Predictions:
        grey = image[:, :1].float()
        slope = torch.nn.functional.pad(grey, (1, 1, 0, 0), mode="replicate")
        x = slope[..., 2:] - slope[..., :-2]
        return Predictions({"normals": torch.cat([x, 0 * x, 0 * x - 5], 1)})


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task("semseg"), make_task("depth"), make_task("edge")]


def assert_maps_close(first: PredictionMaps, second: PredictionMaps, atol: float = 0) -> None:
    assert first.keys() == second.keys()
    for task, values in first.items():
        np.testing.assert_allclose(values, second[task], rtol=0, atol=atol)


def test_maps_have_image_size_and_the_type_of_their_task() -> None:
    experiment = make_tiny_experiment("tasks=[semseg, depth, normals, edge]")
    tasks = build_tasks(experiment)
    maps = Predictor(build_model(experiment, tasks), tasks, experiment.input, device="cpu")(
        make_image()
    )
    assert {task: (each.shape, each.dtype.kind) for task, each in maps.items()} == {
        "semseg": (SIZE, "i"),
        "depth": (SIZE, "f"),
        "normals": ((*SIZE, 3), "f"),
        "edge": (SIZE, "f"),
    }
    assert 0 <= maps["edge"].min() <= maps["edge"].max() <= 1


@pytest.mark.parametrize("settings", [RESIZE, PAD])
def test_list_gives_the_same_maps_as_single_images(
    tasks: list[Task], settings: InputConfig
) -> None:
    network = PixelColors()
    predictor = Predictor(network, tasks, settings, device="cpu", batch_size=2)
    images = [make_image(seed=0), make_image(seed=1), make_image((20, 30), 2)]
    together = predictor(images)
    assert [shape[0] for shape in network.sizes] == [2, 1]
    for image, maps in zip(images, together, strict=True):
        assert_maps_close(predictor(image), maps)
    assert predictor([]) == []


def test_padding_preserves_larger_images(tasks: list[Task]) -> None:
    network = PixelColors()
    maps = Predictor(network, tasks, PAD, device="cpu")(make_image())
    np.testing.assert_array_equal(maps["depth"], make_image()[..., 0].astype(np.float32) / 255)
    assert network.sizes == [(1, 3, 37, 61)]


@pytest.mark.parametrize("options", [{"flip": True}, {"tile": (16, 20)}, {"tile": (64, 64)}])
def test_augmentation_and_tiling_preserve_pixelwise_predictions(
    tasks: list[Task], options: dict[str, object]
) -> None:
    plain = Predictor(PixelColors(), tasks, PAD, device="cpu")
    varied = Predictor(PixelColors(), tasks, PAD, device="cpu", **options)
    assert_maps_close(plain(make_image()), varied(make_image()), atol=1e-6)


def test_tiles_have_original_resolution(tasks: list[Task]) -> None:
    network = PixelColors()
    predictor = Predictor(network, tasks[:1], RESIZE, device="cpu", tile=(32, 40), batch_size=3)
    maps = predictor(make_image())
    assert network.sizes == [(3, 3, 32, 40), (1, 3, 32, 40)]
    np.testing.assert_array_equal(maps["semseg"], make_image().argmax(-1))


def make_bright_bar() -> NDArray[np.uint8]:
    image = np.zeros((64, 80, 3), np.uint8)
    image[:, 20:40] = 255
    return image


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        (PAD, {"scales": (2,)}),
        (PAD, {"scales": (0.5, 1, 1.5, 2), "flip": True}),
        (InputConfig(size=(64, 80)), {"scales": (0.5, 1, 2)}),
        (InputConfig(size=(32, 40)), {"scales": (1, 2)}),
        (InputConfig(size=(32, 40)), {"tile": (64, 80)}),
        (InputConfig(size=(32, 40)), {"tile": (64, 80), "scales": (0.5, 1)}),
    ],
)
def test_depth_is_corrected_for_scale_and_tiling(
    make_task: Callable[..., Task], settings: InputConfig, options: dict[str, object]
) -> None:
    tasks = [make_task("depth")]
    expected_maps = Predictor(DepthFromWidth(), tasks, settings, device="cpu")(make_bright_bar())
    maps = Predictor(DepthFromWidth(), tasks, settings, device="cpu", **options)(make_bright_bar())
    assert_maps_close(expected_maps, maps, atol=1e-5)


def test_normals_of_flipped_images_are_flipped_back(make_task: Callable[..., Task]) -> None:
    tasks, image = [make_task("normals")], make_image()
    plain = Predictor(NormalsFromGradient(), tasks, PAD, device="cpu")(image)
    flipped = Predictor(NormalsFromGradient(), tasks, PAD, device="cpu", flip=True)(image)
    assert np.abs(plain["normals"][..., 0]).max() > 0.9
    assert_maps_close(plain, flipped, atol=1e-5)


def test_logits_of_augmented_images_are_averaged(make_task: Callable[..., Task]) -> None:
    class Left(nn.Module):
        def forward(self, image: Tensor) -> Predictions:
            x = torch.linspace(0, 1, image.shape[-1]).expand(1, 1, *image.shape[-2:])
            return Predictions({"depth": x})

    predictor = Predictor(Left(), [make_task("depth")], PAD, device="cpu", flip=True)
    np.testing.assert_allclose(predictor(make_image())["depth"], 0.5, atol=1e-6)


def test_default_predictions_equal_evaluation() -> None:
    experiment = make_tiny_experiment("tasks=[semseg, depth, normals]")
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks).eval()
    maps = Predictor(model, tasks, experiment.input, device="cpu", channels_last=False)(
        make_image()
    )
    geometry, _ = stretch_to_size(SIZE, (32, 40))
    image = torch.from_numpy(geometry.apply_image(make_image())).permute(2, 0, 1)[None].contiguous()
    with torch.no_grad():
        final = model(image).logits
    for task in tasks:
        logits = torch.nn.functional.interpolate(
            final[task.name], size=SIZE, mode="bilinear", align_corners=False
        )
        expected = task.decode(logits)[0].squeeze(0).numpy()
        shown = maps[task.name] if expected.ndim == 2 else np.moveaxis(maps[task.name], -1, 0)
        np.testing.assert_array_equal(shown, expected)


@pytest.mark.usefixtures("double_precision")
def test_fuse_bn_preserves_predictions_and_weights_of_the_model() -> None:
    experiment = make_tiny_experiment()
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = Predictor(model, tasks, experiment.input, device="cpu")(make_image())
    folded = Predictor(model, tasks, experiment.input, device="cpu", fuse_bn=True)(make_image())
    assert plain["depth"].dtype == np.float32
    np.testing.assert_allclose(plain["depth"], folded["depth"], rtol=1e-6, atol=1e-6)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_bf16_predictions_are_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make_tiny_experiment("tasks=[depth]")
    tasks = build_tasks(experiment)
    predictor = Predictor(
        build_model(experiment, tasks), tasks, experiment.input, device="cpu", amp="bf16"
    )
    assert predictor.precision.autocast_dtype == torch.bfloat16
    assert predictor(make_image())["depth"].dtype == np.float32


def test_compiled_model_gives_the_same_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    compiled_models: list[nn.Module] = []

    def compile_eagerly(model: nn.Module) -> object:
        compiled_models.append(model)
        return compiled(model, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", compile_eagerly)
    experiment = make_tiny_experiment("head={name: linear}")
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks)
    plain = Predictor(model, tasks, experiment.input, device="cpu")(make_image())
    assert_maps_close(
        plain, Predictor(model, tasks, experiment.input, device="cpu", compile=True)(make_image())
    )
    assert compiled_models == [model]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (1, 2)}, "scale: unknown key, did you mean 'scales'"),
        ({"scales": ()}, "scales"),
        ({"overlap": 1}, "overlap"),
        ({"tile": (0, 5)}, "tile.0"),
    ],
)
def test_invalid_options_raise_config_error(
    tasks: list[Task], options: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Predictor(PixelColors(), tasks, device="cpu", **options)


def test_missing_gpu_raises_user_error(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU"):
        Predictor(PixelColors(), tasks, device="cuda")


def test_missing_run_raises_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished validation there yet"):
        densemtl.Predictor.from_run(tmp_path)


def test_models_without_a_run_predict_in_float32_on_every_machine(
    monkeypatch: pytest.MonkeyPatch, tasks: list[Task]
) -> None:
    monkeypatch.setattr("densemtl.runtime.hardware.has_native_bf16", lambda device: True)
    assert Predictor(PixelColors(), tasks, RESIZE, device="cpu").precision.autocast_dtype is None

"""Predictors: what evaluation scores, whatever the image's form; views and windows by hand."""

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


def photo(size: Size = SIZE, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


class PerPixel(nn.Module):
    """Logits that are the pixel's own colour: the same however the image is cut or mirrored."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor) -> Predictions:
        self.sizes.append(tuple(image.shape))
        colour = image.float() / 255
        return Predictions({"semseg": colour, "depth": colour[:, :1], "edge": colour[:, 1:2]})


class Ruler(nn.Module):
    """Depth from the width of the bright thing in the picture, as a camera of one focal length."""

    def forward(self, image: Tensor) -> Predictions:
        widths = (image[:, 0].float() > 127).sum(-1).amax(-1)
        depth = (100 / widths)[:, None, None, None].expand(-1, 1, *image.shape[-2:])
        return Predictions({"depth": depth})


class Sideways(nn.Module):
    """Normals that point to where it is brighter along x, and one that never changes."""

    def forward(self, image: Tensor) -> Predictions:
        grey = image[:, :1].float()
        slope = torch.nn.functional.pad(grey, (1, 1, 0, 0), mode="replicate")
        x = slope[..., 2:] - slope[..., :-2]
        return Predictions({"normals": torch.cat([x, 0 * x, 0 * x - 5], 1)})


@pytest.fixture
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task("semseg"), make_task("depth"), make_task("edge")]


def same(first: PredictionMaps, second: PredictionMaps, atol: float = 0) -> None:
    assert first.keys() == second.keys()
    for task, values in first.items():
        np.testing.assert_allclose(values, second[task], rtol=0, atol=atol)


def test_maps_have_the_image_s_size_and_their_task_s_kind() -> None:
    experiment = make_tiny_experiment("tasks=[semseg, depth, normals, edge]")
    tasks = build_tasks(experiment)
    maps = Predictor(build_model(experiment, tasks), tasks, experiment.input, device="cpu")(photo())
    assert {task: (each.shape, each.dtype.kind) for task, each in maps.items()} == {
        "semseg": (SIZE, "i"),
        "depth": (SIZE, "f"),
        "normals": ((*SIZE, 3), "f"),
        "edge": (SIZE, "f"),
    }
    assert 0 <= maps["edge"].min() <= maps["edge"].max() <= 1


@pytest.mark.parametrize("settings", [RESIZE, PAD])
def test_a_list_gives_what_its_images_give_alone(tasks: list[Task], settings: InputConfig) -> None:
    network = PerPixel()
    predictor = Predictor(network, tasks, settings, device="cpu", batch_size=2)
    photos = [photo(seed=0), photo(seed=1), photo((20, 30), 2)]
    together = predictor(photos)
    assert [shape[0] for shape in network.sizes] == [2, 1]
    for one, maps in zip(photos, together, strict=True):
        same(predictor(one), maps)
    assert predictor([]) == []


def test_a_padded_image_is_seen_as_it_is(tasks: list[Task]) -> None:
    network = PerPixel()
    maps = Predictor(network, tasks, PAD, device="cpu")(photo())
    np.testing.assert_array_equal(maps["depth"], photo()[..., 0].astype(np.float32) / 255)
    assert network.sizes == [(1, 3, 37, 61)]


@pytest.mark.parametrize("options", [{"flip": True}, {"tile": (16, 20)}, {"tile": (64, 64)}])
def test_views_and_windows_change_nothing_that_depends_on_the_pixel_alone(
    tasks: list[Task], options: dict[str, object]
) -> None:
    plain = Predictor(PerPixel(), tasks, PAD, device="cpu")
    varied = Predictor(PerPixel(), tasks, PAD, device="cpu", **options)
    same(plain(photo()), varied(photo()), atol=1e-6)


def test_windows_see_the_image_at_its_own_resolution(tasks: list[Task]) -> None:
    network = PerPixel()
    predictor = Predictor(network, tasks[:1], RESIZE, device="cpu", tile=(32, 40), batch_size=3)
    maps = predictor(photo())
    assert network.sizes == [(3, 3, 32, 40), (1, 3, 32, 40)]
    np.testing.assert_array_equal(maps["semseg"], photo().argmax(-1))


def bright_thing() -> NDArray[np.uint8]:
    picture = np.zeros((64, 80, 3), np.uint8)
    picture[:, 20:40] = 255
    return picture


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
def test_depth_does_not_depend_on_how_near_things_are_shown(
    make_task: Callable[..., Task], settings: InputConfig, options: dict[str, object]
) -> None:
    tasks = [make_task("depth")]
    usual = Predictor(Ruler(), tasks, settings, device="cpu")(bright_thing())
    seen = Predictor(Ruler(), tasks, settings, device="cpu", **options)(bright_thing())
    same(usual, seen, atol=1e-5)


def test_mirrored_normals_come_back(make_task: Callable[..., Task]) -> None:
    tasks, picture = [make_task("normals")], photo()
    plain = Predictor(Sideways(), tasks, PAD, device="cpu")(picture)
    flipped = Predictor(Sideways(), tasks, PAD, device="cpu", flip=True)(picture)
    assert np.abs(plain["normals"][..., 0]).max() > 0.9
    same(plain, flipped, atol=1e-5)


def test_views_are_averaged(make_task: Callable[..., Task]) -> None:
    class Left(nn.Module):
        def forward(self, image: Tensor) -> Predictions:
            x = torch.linspace(0, 1, image.shape[-1]).expand(1, 1, *image.shape[-2:])
            return Predictions({"depth": x})

    predictor = Predictor(Left(), [make_task("depth")], PAD, device="cpu", flip=True)
    np.testing.assert_allclose(predictor(photo())["depth"], 0.5, atol=1e-6)


def test_a_single_view_is_what_evaluation_sees() -> None:
    experiment = make_tiny_experiment("tasks=[semseg, depth, normals]")
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks).eval()
    maps = Predictor(model, tasks, experiment.input, device="cpu", channels_last=False)(photo())
    geometry, _ = stretch_to_size(SIZE, (32, 40))
    image = torch.from_numpy(geometry.apply_image(photo())).permute(2, 0, 1)[None].contiguous()
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
def test_the_model_keeps_its_weights_and_folding_changes_little() -> None:
    experiment = make_tiny_experiment()
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plain = Predictor(model, tasks, experiment.input, device="cpu")(photo())
    folded = Predictor(model, tasks, experiment.input, device="cpu", fuse_bn=True)(photo())
    assert plain["depth"].dtype == np.float32
    np.testing.assert_allclose(plain["depth"], folded["depth"], rtol=1e-6, atol=1e-6)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_bf16_runs_in_bf16_and_gives_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = make_tiny_experiment("tasks=[depth]")
    tasks = build_tasks(experiment)
    predictor = Predictor(
        build_model(experiment, tasks), tasks, experiment.input, device="cpu", amp="bf16"
    )
    assert predictor.precision.autocast_dtype == torch.bfloat16
    assert predictor(photo())["depth"].dtype == np.float32


def test_compiled_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = torch.compile
    seen: list[nn.Module] = []

    def quickly(model: nn.Module) -> object:
        seen.append(model)
        return compiled(model, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", quickly)
    experiment = make_tiny_experiment("head={name: linear}")
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks)
    plain = Predictor(model, tasks, experiment.input, device="cpu")(photo())
    same(plain, Predictor(model, tasks, experiment.input, device="cpu", compile=True)(photo()))
    assert seen == [model]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": (1, 2)}, "scale: unknown key, did you mean 'scales'"),
        ({"scales": ()}, "scales"),
        ({"overlap": 1}, "overlap"),
        ({"tile": (0, 5)}, "tile.0"),
    ],
)
def test_wrong_options_are_told(tasks: list[Task], options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Predictor(PerPixel(), tasks, device="cpu", **options)


def test_a_device_that_is_not_there(tasks: list[Task], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="no usable GPU"):
        Predictor(PerPixel(), tasks, device="cuda")


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished validation there yet"):
        densemtl.Predictor.from_run(tmp_path)

"""Backbones for images of other channels than RGB."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError


def make(name: str = "test_resnet", channels: int = 4, **options: object) -> Backbone:
    values = tuple(0.5 for _ in range(channels))
    given = {"mean": values, "std": values, **options}
    return Backbone(name, pretrained=False, in_chans=channels, **given).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("channels", [1, 5])
def test_backbones_take_other_channels(name: str, channels: int) -> None:
    backbone = make(name, channels)
    image = torch.randn(1, channels, 64, 96)
    with torch.no_grad():
        whole, state = backbone(image), backbone.run_stem(image)
        for index in range(len(backbone.feature_info)):
            state = backbone.run_stage(index, state)
    torch.testing.assert_close(state.feature, whole[-1])
    assert (backbone.in_chans, len(backbone.mean)) == (channels, channels)


@pytest.mark.parametrize("channels", [1, 4, 6])
@pytest.mark.parametrize("match", ["name", "order"])
def test_rgb_weights_are_adapted(tmp_path: Path, channels: int, match: str) -> None:
    """A gray image in all channels gives the features of the network for RGB."""
    rgb = Backbone("test_resnet", pretrained=False).eval()
    for parameter in rgb.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    file = tmp_path / "rgb.pth"
    torch.save(rgb.net.state_dict(), file)
    backbone = make(channels=channels, weights=file, weights_match=match)
    gray = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        expected = rgb(gray.expand(1, 3, 32, 32))
        # one channel gets the sum of the RGB weights, others their repetition times 3 / channels
        actual = backbone(gray.expand(1, channels, 32, 32))
    if channels != 4:  # R would count twice
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)
    first = next(iter(backbone.net.parameters()))
    weight = next(iter(rgb.net.parameters()))
    expected_first = weight.sum(1) if channels == 1 else weight[:, 0] * 3 / channels
    torch.testing.assert_close(first[:, 0], expected_first)


def test_weights_of_other_shapes_are_still_an_error(tmp_path: Path) -> None:
    state = dict(Backbone("test_resnet", pretrained=False).net.state_dict())
    name = next(iter(state))
    state[name] = state[name][:, :2].contiguous()
    save_file(state, tmp_path / "two.safetensors")
    with pytest.raises(ModelError, match="does not fit the backbone"):
        make(weights=tmp_path / "two.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mean": None}, r"backbone\.mean: must be given for images of 4 channels.*check_data"),
        ({"std": None}, r"backbone\.std: must be given for images of 4 channels"),
        ({"mean": (0.5,)}, r"backbone\.mean: 1 values for images of 4 channels"),
        ({"std": (0.5,) * 5}, r"backbone\.std: 5 values for images of 4 channels"),
    ],
)
def test_mean_and_std_must_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        make(**options)


def test_mean_and_std_of_rgb_may_be_given() -> None:
    assert make(channels=3, mean=(0.1, 0.2, 0.3)).mean == (0.1, 0.2, 0.3)
    with pytest.raises(ModelError, match=r"backbone\.std: must be given"):
        Backbone("test_resnet", pretrained=False, mean=(0.1, 0.2, 0.3))

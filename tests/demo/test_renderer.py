"""Files of the demo: distinct outputs for distinct images of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from densemtl.demo.renderer import DemoRenderer
from densemtl.errors import DataError
from densemtl.registry import create

IMAGE = np.zeros((8, 8, 3), np.uint8)


class Predictor:
    """Predictor of constant depth."""

    tasks = (create("tasks", "depth", "depth", options={}),)

    def __call__(self, image: Any) -> dict[str, Any]:
        return {"depth": np.ones((8, 8), np.float32)}


class SlopePredictor(Predictor):
    """Predictor of depth that increases over one meter, beyond the value of the first pixel."""

    def __call__(self, image: Any) -> dict[str, Any]:
        slope = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
        return {"depth": slope + image[0, 0, 0]}


def render(folder: Path, *ids: str) -> None:
    samples = [SimpleNamespace(id=name, image=IMAGE, targets={}) for name in ids]
    predictor: Any = Predictor()
    dataset: Any = samples
    DemoRenderer(predictor, folder, 1.0, save_raw=True).render_dataset(dataset, len(samples))


@pytest.mark.parametrize("ids", [("a/b_c", "a_b/c"), ("a/b", "a_b"), ("a/b/c", "a/b_c")])
def test_ids_with_slashes_have_their_own_files(tmp_path: Path, ids: tuple[str, str]) -> None:
    render(tmp_path, *ids)
    for name in ids:
        assert (tmp_path / f"{name}.png").is_file()
        assert (tmp_path / "maps" / "depth" / f"{name}.npy").is_file()


def test_colors_of_a_video_change_slowly(tmp_path: Path) -> None:
    predictor: Any = SlopePredictor()
    renderer = DemoRenderer(predictor, tmp_path)
    still, jump = (list(renderer._iter_panels("x", [IMAGE, IMAGE + far])) for far in (0, 3))
    np.testing.assert_array_equal(*still)
    near, far = (panel[30:38, 24:32] for panel in jump)
    assert len(np.unique(near.reshape(-1, 3), axis=0)) > 50
    assert (far == far[-1, -1]).all()


def test_frames_of_a_video_keep_their_order_and_errors_are_raised(tmp_path: Path) -> None:
    predictor: Any = SlopePredictor()
    renderer = DemoRenderer(predictor, tmp_path, save_raw=True)

    def read_frames() -> Iterator[Any]:
        yield from (np.full((8, 8, 3), number, np.uint8) for number in range(6))
        raise DataError("no more")

    panels = renderer._iter_panels("x", read_frames())
    shown = [next(panels)[30, 8] for _ in range(6)]
    with pytest.raises(DataError, match="no more"):
        next(panels)
    np.testing.assert_array_equal(np.array(shown)[:, 0], range(6))
    for number in range(6):
        assert np.load(tmp_path / "maps" / "depth" / f"x_{number:06d}.npy").min() == number


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x"])
def test_ids_do_not_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="outside"):
        render(tmp_path / "out", name)
    assert not list(tmp_path.glob("*.png"))

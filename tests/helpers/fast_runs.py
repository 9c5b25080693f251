"""Shortcuts for tests that train: figures are empty files, and every small scene is rendered once.

Drawing takes half of the time of a tiny run, and rendering a fifth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene

_savefig = Figure.savefig
_render = SyntheticDataset.render_scene
_scenes: dict[tuple[Any, ...], RenderedScene] = {}
MAX_PIXELS = 64 * 96
"""Size of the largest scenes that are kept."""


def skip_figures() -> None:
    """Write empty files instead of figures."""
    Figure.savefig = lambda figure, file, **_: Path(file).touch()  # type: ignore[method-assign]


@contextmanager
def drawn_figures() -> Iterator[None]:
    """Draw figures in tests that look at them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", _savefig)
        yield


def keep_scenes() -> None:
    """Render every small scene once, and return copies of it."""
    SyntheticDataset.render_scene = _render_once  # type: ignore[method-assign]


@contextmanager
def rendered_scenes() -> Iterator[None]:
    """Render every scene, in tests of the rendering."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyntheticDataset, "render_scene", _render)
        yield


def _render_once(dataset: SyntheticDataset, index: int) -> RenderedScene:
    height, width = dataset.size
    if height * width > MAX_PIXELS:
        return _render(dataset, index)
    key = dataset.split, dataset.size, dataset.seed, range(len(dataset))[index]
    if key not in _scenes:
        _scenes[key] = _render(dataset, index)
    return deepcopy(_scenes[key])

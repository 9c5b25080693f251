"""Cache of rendered scenes, because tests of training read the same few scenes many times."""

from __future__ import annotations

from typing import Any

import pytest

from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene

_SCENES: dict[tuple[Any, ...], RenderedScene] = {}
_render = SyntheticDataset.render_scene


@pytest.fixture(autouse=True)
def _render_each_scene_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cache scenes in this package only; other tests check that rendering is deterministic."""

    def render(dataset: SyntheticDataset, index: int) -> RenderedScene:
        key = dataset.split, dataset.size, dataset.seed, index
        if key not in _SCENES:
            _SCENES[key] = _render(dataset, index)
        return _SCENES[key]

    monkeypatch.setattr(SyntheticDataset, "render_scene", render)

"""Tests of training read the same few rooms again and again."""

from __future__ import annotations

from typing import Any

import pytest

from densemtl.data.datasets.synthetic import SyntheticDataset
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene

_SCENES: dict[tuple[Any, ...], RenderedScene] = {}
_render = SyntheticDataset.render_scene


@pytest.fixture(autouse=True)
def _rooms_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here alone: elsewhere it is tested that rendering again gives the same."""

    def render(dataset: SyntheticDataset, index: int) -> RenderedScene:
        key = dataset.split, dataset.size, dataset.seed, index
        if key not in _SCENES:
            _SCENES[key] = _render(dataset, index)
        return _SCENES[key]

    monkeypatch.setattr(SyntheticDataset, "render_scene", render)

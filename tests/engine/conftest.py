"""Tests of training read the same few rooms again and again."""

from __future__ import annotations

from typing import Any

import pytest

from densemtl.data.scenes.render import View
from densemtl.data.synthetic import Synthetic

_VIEWS: dict[tuple[Any, ...], View] = {}
_render = Synthetic.view


@pytest.fixture(autouse=True)
def _rooms_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here alone: elsewhere it is tested that rendering again gives the same."""

    def view(dataset: Synthetic, index: int) -> View:
        key = dataset.split, dataset.size, dataset.seed, index
        if key not in _VIEWS:
            _VIEWS[key] = _render(dataset, index)
        return _VIEWS[key]

    monkeypatch.setattr(Synthetic, "view", view)

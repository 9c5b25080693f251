"""Tests of datasets render every scene, because they check that rendering is deterministic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.helpers import fast_runs


@pytest.fixture(autouse=True)
def _rendered_scenes() -> Iterator[None]:
    with fast_runs.rendered_scenes():
        yield

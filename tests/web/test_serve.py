"""Without the extra, one line names it."""

from __future__ import annotations

import sys

import pytest

from densemtl.errors import ConfigError
from densemtl.web.serve import make_app


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "")
    with pytest.raises(ConfigError, match=r'pip install "densemtl\[web\]"'):
        make_app(None, "")

"""Errors of the server: missing packages and unavailable addresses."""

from __future__ import annotations

import sys

import pytest

from densemtl.demo.web.server import listen, serve
from densemtl.errors import ConfigError


@pytest.mark.parametrize("package", ["fastapi", "uvicorn"])
def test_missing_package_is_config_error(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "densemtl.demo.web.page", raising=False)
    monkeypatch.delitem(sys.modules, "densemtl.demo.web.middleware", raising=False)
    with pytest.raises(ConfigError, match=r'pip install "densemtl\[web\]"'):
        serve(None, "127.0.0.1", 0)


def test_used_port_is_config_error() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"--port {port}: cannot listen on this address"):
            listen("127.0.0.1", port)

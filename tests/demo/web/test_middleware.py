"""HTTP responses: routes, size limits, security headers and trusted host names."""

from __future__ import annotations

import asyncio
import json

import cv2
import numpy as np
import pytest

pytest.importorskip("fastapi", reason='needs pip install "densemtl[web]"')
from densemtl.demo.web import page
from densemtl.demo.web.page import MAX_BYTES, UPLOAD_TYPE, create_app

PNG = cv2.imencode(".png", np.zeros((4, 6, 3), np.uint8))[1].tobytes()


class NoTasks:
    """Fake predictor without tasks."""

    tasks = ()

    def __call__(self, image: np.ndarray) -> dict[str, np.ndarray]:
        return {}


def ask(
    method: str, path: str, *parts: bytes, host: str = "localhost:7860", kind: str = UPLOAD_TYPE
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send a request and return status, headers and body of the response."""
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    return ask_with(waiting, method, path, host, kind)


def ask_with(
    waiting: list[dict], method: str, path: str, host: str, kind: str
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Send the given ASGI messages and return status, headers and body of the response."""
    sent: list[dict] = []

    async def receive():
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    async def send(message) -> None:
        sent.append(message)

    headers = [(b"host", host.encode()), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "root_path": ""}
    scope |= {"headers": headers, "scheme": "http", "http_version": "1.1"}
    asyncio.run(create_app(NoTasks(), "0.0.0.0")(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), body


@pytest.mark.parametrize("path", ["/", "/info", "/viewer.css", "/viewer.js"])
def test_page_files_are_served_with_security_headers(path: str) -> None:
    status, headers, body = ask("GET", path)
    assert status == 200
    assert len(body) == int(headers[b"content-length"]) > 0
    assert b"default-src 'none'" in headers[b"content-security-policy"]
    assert b"unsafe" not in headers[b"content-security-policy"]
    assert headers[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/file=/etc/passwd"),
        ("GET", "/file/etc/passwd"),
        ("GET", "/proxy=http://example.org"),
        ("GET", "//etc/passwd"),
        ("GET", "/../page.py"),
        ("GET", "/static/../../secret"),
        ("GET", "/static/..\\secret"),
        ("GET", "/docs"),
        ("GET", "/openapi.json"),
        ("GET", "/monitoring"),
        ("GET", "/predict"),
        ("POST", "/upload"),
        ("POST", "/info"),
        ("POST", "/viewer.js"),
        ("POST", "/"),
        ("PUT", "/"),
        ("OPTIONS", "/predict"),
    ],
)
def test_other_routes_are_not_found(method: str, path: str) -> None:
    status, headers, _ = ask(method, path)
    assert status in (404, 405)
    assert b"content-security-policy" in headers


def test_size_of_uploads_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    status, _, body = ask("POST", "/predict", PNG[:20], PNG[20:])
    assert (status, json.loads(body)["width"]) == (200, 6)
    part = bytes(MAX_BYTES // 4)
    status, _, body = ask("POST", "/predict", *4 * [part])
    assert (status, b"not a supported image" in body) == (400, True)
    monkeypatch.setattr(page, "read_upload", lambda _: pytest.fail("decoded"))
    status, _, body = ask("POST", "/predict", *4 * [part], b"x")
    assert (status, b"larger than 20 MB (choose a smaller one)" in body) == (413, True)


def test_stalled_or_interrupted_uploads_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "UPLOAD_SECONDS", 0.05)
    first = {"type": "http.request", "body": PNG[:20], "more_body": True}
    status, _, body = ask_with([first], "POST", "/predict", "localhost", UPLOAD_TYPE)
    assert (status, b"took longer" in body) == (408, True)
    left = {"type": "http.disconnect"}
    status, _, body = ask_with([first, left], "POST", "/predict", "localhost", UPLOAD_TYPE)
    assert (status, b"interrupted" in body) == (400, True)


@pytest.mark.parametrize("kind", ["", "text/plain", "multipart/form-data", "image/png"])
def test_content_types_of_cross_site_requests_are_rejected(kind: str) -> None:
    assert ask("POST", "/predict", PNG, kind=kind)[0] == 415


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("localhost", True),
        ("LOCALHOST:7860", True),
        ("127.0.0.1:7860", True),
        ("[::1]:7860", True),
        ("192.168.0.7", True),
        ("evil.example:7860", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_untrusted_host_header_is_rejected(host: str, trusted: bool) -> None:
    for method, path in (("GET", "/"), ("POST", "/predict")):
        status, headers, body = ask(method, path, PNG, host=host)
        assert status == (200 if trusted else 400)
        assert trusted or b"Host header" in body
        assert b"content-security-policy" in headers

"""Requests of other sites and malformed requests get a 4xx response and never an exception."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

pytest.importorskip("fastapi", reason='needs pip install "densemtl[web]"')
from densemtl.demo.web.page import UPLOAD_TYPE, create_app
from tests.demo.web.test_middleware import PNG, NoTasks

Header = tuple[bytes, bytes]


def ask(
    method: str,
    path: str,
    *headers: Header,
    body: bytes = PNG,
    host: bytes = b"localhost:7860",
    kind: bytes = UPLOAD_TYPE.encode(),
    query: bytes = b"",
) -> int:
    """Send a request without a server, and return the status of the response."""
    sent: list[dict] = []
    parts: Sequence[Header] = [(b"host", host), (b"content-type", kind), *headers]

    async def receive() -> dict:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": query}
    scope |= {"headers": parts, "scheme": "http", "http_version": "1.1", "root_path": ""}
    scope["raw_path"] = path.encode(errors="surrogatepass")
    asyncio.run(create_app(NoTasks(), "0.0.0.0")(scope, receive, send))
    return sent[0]["status"]


@pytest.mark.parametrize(
    "origin",
    [
        *(
            "https://example.org",
            "http://localhost",
            "http://localhost:1",
            "null",
            "",
            "x",
            "http://",
        ),
        *("http://localhost:7860.example.org", "http://a@localhost:7860", "ftp://localhost:7860"),
        *("http://127.0.0.1:7860", "http://[::1", "http://localhost:7860/x", "\xff"),
    ],
)
def test_requests_of_other_sites_are_rejected(origin: str) -> None:
    header = (b"origin", origin.encode("latin-1"))
    assert ask("POST", "/predict", header) == 403
    assert ask("GET", "/info", header) == 403


@pytest.mark.parametrize("host", ["localhost:7860", "127.0.0.1", "[::1]:80", "0.0.0.0:7860"])
def test_requests_of_the_page_itself_are_answered(host: str) -> None:
    for scheme in ("http", "https"):
        header = (b"origin", f"{scheme}://{host}".encode())
        assert ask("POST", "/predict", header, host=host.encode()) == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"",
            b"example.org",
            b"localhost.",
            b"a@localhost",
            b"localhost/x",
            b"localhost?",
            b"[::1",
        ),
        *(b"localhost:x", b"127.0.0.1.example.org", b"\xff", b"localhost\0", b"localhost:80:80"),
    ],
)
def test_other_hosts_are_rejected(host: bytes) -> None:
    assert ask("GET", "/info", host=host) == 400


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/\ud800",
            "/\udcff.png",
            "/\0",
            "/a\0b",
            "/..\0",
            "/%00",
            "/\n",
            "/\xff",
            "/" + "a" * 9000,
        ),
        *(
            "/" + "a" * 9000,
            "/info/99",
            "/predict/",
            "/predict/99",
            "/viewer.css/x",
            "/../" * 90,
            "/\\..\\x",
        ),
    ],
)
def test_unknown_paths_are_not_found(path: str) -> None:
    assert ask("GET", path) == 404
    assert ask("POST", path) in (404, 405)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"\x89PNG", b'{"fn_index": 99}', b"\xed\xa0\x80", b"II*\0" + b"\xff" * 50),
        *(b"BM" + b"\xff" * 60, b"RIFF" + b"\xff" * 60, b"P6 99999999 99999999 255\n", PNG[:-20]),
    ],
)
def test_uploads_of_other_content_are_rejected(body: bytes) -> None:
    assert ask("POST", "/predict", body=body, query=b"fn_index=99&\xff") == 400


@pytest.mark.parametrize("kind", [b"", b"application/json", b"\xff", b"multipart/form-data"])
def test_uploads_of_other_types_are_rejected(kind: bytes) -> None:
    assert ask("POST", "/predict", kind=kind) == 415

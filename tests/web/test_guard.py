"""What the guard lets through: the page's own routes, with bodies that fit in memory."""

from __future__ import annotations

import asyncio

import pytest

from densemtl.web.guard import MAX_BODY, Guard


async def echo(scope, receive, send) -> None:
    """Answers with the body it was sent."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    await send({"type": "http.response.body", "body": body})


def ask(method: str, path: str, *parts: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of an answer."""
    waiting = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict] = []

    async def receive():
        return waiting.pop(0)

    async def send(message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path}
    asyncio.run(Guard(echo)(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize("path", ["/", "/config", "/assets/index.js", "/gradio_api/queue/data"])
def test_the_page_is_let_through(path: str) -> None:
    status, headers, _ = ask("GET", path)
    assert status == 200
    assert headers[b"x-own"] == b"1"
    assert b"default-src 'self'" in headers[b"content-security-policy"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/file=/etc/passwd"),
        ("GET", "/gradio_api/file/etc/passwd"),
        ("GET", "/gradio_api/proxy=http://example.org"),
        ("GET", "/assets/../../secret"),
        ("GET", "/static/..\\secret"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/monitoring"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/"),
        ("PUT", "/"),
        ("OPTIONS", "/gradio_api/queue/join"),
    ],
)
def test_nothing_else_is(method: str, path: str) -> None:
    assert ask(method, path)[0] == 404


def test_bodies_arrive_whole_and_bounded() -> None:
    join = "/gradio_api/queue/join"
    assert ask("POST", join, b"one", b"two")[2] == b"onetwo"
    part = bytes(MAX_BODY // 4)
    assert ask("POST", join, *4 * [part])[0] == 200
    assert ask("POST", join, *5 * [part])[0] == 413

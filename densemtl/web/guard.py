"""What stands before Gradio: a few routes, bounded bodies, and a browser that stays here.

Gradio brings dozens of routes (files, uploads, proxies, histories); the page needs a few of them.
No other answers, whatever later versions add.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from densemtl.web.upload import MAX_BYTES

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]
"""As ASGI 3 defines them."""

MAX_BODY = MAX_BYTES * 4 // 3 + 2**16
"""Bytes of a request: a file in base64, and what is around it."""

_API = "/gradio_api"
PAGES = (
    *("/", "/config", "/theme.css", "/favicon.ico", "/robots.txt", "/manifest.json"),
    *(f"{_API}/{name}" for name in ("info", "app_id", "startup-events", "queue/data")),
    *(f"{_API}/{name}" for name in ("theme.css", "login_check")),
)
FOLDERS = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/")
"""Routes for GET and HEAD: exact ones, and beginnings."""

CALLS = tuple(f"{_API}/{name}" for name in ("queue/join", "reset", "cancel"))
"""Routes for POST."""

_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; font-src 'self' data:; "
    "style-src 'self' 'unsafe-inline'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'self'; form-action 'none'"
)
HEADERS = (
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Guard:
    """Middleware that answers 404 and 413 itself and lets the rest through."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close"})
        if not is_needed(scope["method"], scope["path"]):
            return await _answer(send, 404, b"not found")
        bodies = await _body(receive)
        if bodies is None:
            return await _answer(send, 413, b"too large")
        return await self._app(scope, _again(bodies, receive), _with_headers(send))


def is_needed(method: str, path: str) -> bool:
    """Whether the page calls this route; dots that climb lead nowhere."""
    if ".." in path or "\\" in path:
        return False
    if method == "POST":
        return path.rstrip("/") in CALLS
    return method in ("GET", "HEAD") and (path in PAGES or path.startswith(FOLDERS))


async def _body(receive: Receive) -> Message | None:
    """The whole body as one message; None if it is too large."""
    parts, length = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > MAX_BODY:
            return None
        if not message.get("more_body"):
            return {"type": "http.request", "body": b"".join(parts), "more_body": False}


def _again(first: Message, receive: Receive) -> Receive:
    """Receives one message that was read already, then what follows."""
    waiting = [first]

    async def next_message() -> Message:
        return waiting.pop() if waiting else await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *HEADERS]
        await send(message)

    return forward


async def _answer(send: Send, status: int, text: bytes) -> None:
    headers = [(b"content-type", b"text/plain"), (b"connection", b"close"), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})

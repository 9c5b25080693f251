"""Protect the page: security headers, and a check of the Host header against DNS rebinding."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Awaitable, Callable, Collection
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import JSONResponse

_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
}

Handler = Callable[[Request], Awaitable[Response]]


def protect(host: str) -> Callable[[Request, Handler], Awaitable[Response]]:
    """Return an HTTP middleware for a server that listens on `host`."""
    names = {"localhost", socket.gethostname().lower(), host.lower()}

    async def middleware(request: Request, handle: Handler) -> Response:
        if is_trusted_host(request.headers.get("host", ""), names):
            response = await handle(request)
        else:
            text = "unknown name in the Host header; use an IP address, or serve with --host NAME"
            response = JSONResponse({"error": text}, 400)
        response.headers.update(HEADERS)
        return response

    return middleware


def is_trusted_host(header: str, names: Collection[str]) -> bool:
    """Return whether a Host header holds an IP address or one of the names.

    Another site can let its own name resolve to this server, so that its scripts may read from it.
    Only addresses and the names of this machine are therefore accepted.
    """
    try:
        name = urlsplit(f"//{header}").hostname or ""
        return name in names or ipaddress.ip_address(name) is not None
    except ValueError:  # neither a name nor an address
        return False

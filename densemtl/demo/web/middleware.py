"""Security of the web page: HTTP headers, and checks of Host and Origin against other sites."""

from __future__ import annotations

import ipaddress
import re
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
"""Security headers of all responses."""

_HOST = re.compile(r"[\w.-]+(:\d+)?|\[[\da-fA-F:.]+\](:\d+)?", re.ASCII)
"""Name or address with an optional port."""

Handler = Callable[[Request], Awaitable[Response]]


def protect(host: str) -> Callable[[Request, Handler], Awaitable[Response]]:
    """Create an HTTP middleware that checks the headers Host and Origin and adds security headers.

    Args:
        host: address that the server listens on.

    Returns:
        A coroutine function for FastAPI's `middleware("http")`.
    """
    names = {"localhost", socket.gethostname().lower(), host.lower()}

    async def middleware(request: Request, handle: Handler) -> Response:
        target, origin = request.headers.get("host", ""), request.headers.get("origin")
        if origin is not None and not is_same_origin(origin, target):
            response: Response = JSONResponse({"error": "requests of other sites are refused"}, 403)
        elif is_trusted_host(target, names):
            response = await handle(request)
        else:
            text = "unknown name in the Host header (use an IP address, or serve with --host NAME)"
            response = JSONResponse({"error": text}, 400)
        response.headers.update(HEADERS)
        return response

    return middleware


def is_same_origin(origin: str, host: str) -> bool:
    """Return whether the page that made a request was loaded from this server.

    Args:
        origin: value of the Origin header.
        host: value of the Host header.

    Returns:
        True if the origin has the same name and port; `null`, of local files, has none.

    Example:
        >>> is_same_origin("http://localhost:7860", "localhost:7860")
        True
        >>> is_same_origin("https://example.org", "localhost:7860")
        False
    """
    scheme, _, location = origin.partition("://")
    return scheme in ("http", "https") and location.lower() == host.lower()


def is_trusted_host(header: str, names: Collection[str]) -> bool:
    """Return whether a Host header contains an IP address or a trusted name.

    Another site can let its own name resolve to this server, so that its scripts may read from it.
    Therefore only IP addresses and the names of this machine are accepted.

    Args:
        header: value of the Host header, with or without port.
        names: trusted names in lower case.

    Returns:
        True if the header is trusted.

    Example:
        >>> is_trusted_host("127.0.0.1:7860", {"localhost"})
        True
        >>> is_trusted_host("example.org", {"localhost"})
        False
    """
    if not _HOST.fullmatch(header):
        return False
    try:
        name = urlsplit(f"//{header}").hostname or ""
        return name in names or ipaddress.ip_address(name) is not None
    except ValueError:  # neither a name nor an address
        return False

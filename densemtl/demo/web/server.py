"""Serve the page, by default to this machine only."""

from __future__ import annotations

import socket

from densemtl.errors import ConfigError
from densemtl.inference.predictor import Predictor

CONNECTIONS = 64
"""Limit on simultaneous connections; together with the limit on uploads it bounds the memory."""


def serve(predictor: Predictor, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        predictor: model that predicts the uploaded images.
        host: address to listen on; 127.0.0.1 is reachable from this machine only.
        port: port to listen on; 0 takes a free one.

    Raises:
        ConfigError: the extra is not installed, or the address is not available.
    """
    try:
        import uvicorn

        from densemtl.demo.web.page import create_app
    except ImportError as error:
        text = 'the page needs FastAPI: pip install "densemtl[web]" first'
        raise ConfigError(f"--web: {text} ({error})") from error

    listener = listen(host, port)
    config = uvicorn.Config(
        create_app(predictor, host),
        log_level="warning",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    print(f"page: http://{host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket, so that an unavailable address is reported at once.

    Raises:
        ConfigError: not an address of this machine, or taken.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot listen there ({error})") from error

"""HTTP server of the web page."""

from __future__ import annotations

import socket

from densemtl.errors import ConfigError
from densemtl.inference.predictor import Predictor

CONNECTIONS = 64
"""Maximum number of simultaneous connections; it limits the memory that uploads can use."""


def serve(predictor: Predictor, host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        predictor: model that predicts the uploaded images.
        host: address to listen on; 127.0.0.1 is reachable from this machine only.
        port: port to listen on; 0 selects a free one.

    Raises:
        ConfigError: if FastAPI is not installed or the address is not available.
    """
    try:
        import uvicorn

        from densemtl.demo.web.page import create_app
    except ImportError as error:
        text = 'the page needs FastAPI; install it with pip install "densemtl[web]"'
        raise ConfigError(f"--web: {text} ({error})") from error

    listener = listen(host, port)
    config = uvicorn.Config(
        create_app(predictor, host),
        log_level="warning",
        ws="none",
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
    )
    print(f"page: http://{host}:{listener.getsockname()[1]}  (press Ctrl-C to stop)", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket, so that an unavailable address is reported before the server starts.

    Args:
        host: address to listen on.
        port: port to listen on; 0 selects a free one.

    Returns:
        The listening socket.

    Raises:
        ConfigError: if the address does not belong to this machine or is in use.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--host {host} --port {port}: cannot listen on this address ({error})"
        ) from error

"""Serving the page, to this machine alone unless told otherwise."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile

from densemtl.errors import ConfigError
from densemtl.inference.predictor import Predictor
from densemtl.web.guard import App, Guard

CONNECTIONS = 64
"""At once; with bounded bodies they bound the memory."""


def serve(predictor: Predictor, host: str, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        predictor: the network.
        host: address to listen on; 127.0.0.1 is this machine alone.
        port: 0 takes a free one.

    Raises:
        ConfigError: the extra is not installed, or the address is not free.
    """
    # uvicorn raises the signal that ended it again; by default that would leave the folder behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with tempfile.TemporaryDirectory(prefix="densemtl-") as folder:
        app = make_app(predictor, folder)
        import uvicorn

        listener = listen(host, port)
        config = uvicorn.Config(
            app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1
        )
        print(f"page: http://{host}:{listener.getsockname()[1]}  (Ctrl-C ends it)", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


def make_app(predictor: Predictor, folder: str) -> App:
    """The guarded page as an ASGI application.

    Args:
        predictor: the network.
        folder: private, for Gradio's files; nothing lands there as long as uploads are off.

    Raises:
        ConfigError: the extra is not installed.
    """
    os.environ["GRADIO_TEMP_DIR"] = folder
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError as error:
        text = 'the page needs Gradio: pip install "densemtl[web]" first'
        raise ConfigError(f"--web: {text} ({error})") from error
    from densemtl.web.page import make_page, theme

    app = FastAPI(openapi_url=None)
    app = gr.mount_gradio_app(
        app,
        make_page(predictor),
        path="/",
        theme=theme(),
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        show_error=False,
        max_file_size=0,
        enable_monitoring=False,
    )
    return Guard(app)


def listen(host: str, port: int) -> socket.socket:
    """A socket that is bound already, so that what is wrong with the address is told at once.

    Raises:
        ConfigError: not an address of this machine, or taken.
    """
    try:
        return socket.create_server((host, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: cannot listen there ({error})") from error

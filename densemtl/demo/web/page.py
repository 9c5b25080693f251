"""Web application: static files, and a route that predicts an uploaded image."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from densemtl.demo.web.middleware import protect
from densemtl.demo.web.payload import make_payload
from densemtl.demo.web.upload import read_upload
from densemtl.errors import DataError
from densemtl.inference.predictor import Predictor

MAX_BYTES = 20 * 2**20
"""Maximum size of an uploaded file in bytes."""

CONCURRENCY, QUEUE_SIZE = 1, 8
"""Maximum numbers of images that are predicted simultaneously and that wait in the queue."""

UPLOAD_SECONDS = 60
"""Time limit for the transfer of one image in seconds."""

UPLOAD_TYPE = "application/octet-stream"
"""Content type of uploads. Browsers send it to other sites only if those sites permit it."""


def create_app(predictor: Predictor, host: str) -> FastAPI:
    """Create the web application.

    Args:
        predictor: model that predicts the uploaded images.
        host: address that the server listens on.

    Returns:
        The ASGI application.
    """
    app = FastAPI(openapi_url=None)
    running = asyncio.Semaphore(CONCURRENCY)
    admitted = 0

    @app.get("/info")
    async def info() -> dict[str, Any]:
        return {"tasks": [task.name for task in predictor.tasks], "max_bytes": MAX_BYTES}

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        nonlocal admitted
        data = await _receive_upload(request)
        if isinstance(data, JSONResponse):
            return data
        if admitted >= CONCURRENCY + QUEUE_SIZE:
            return _error(503, "too many images are waiting (try again in a moment)")
        admitted += 1
        try:
            async with running:
                return await run_in_threadpool(_predict_upload, predictor, data)
        finally:
            admitted -= 1

    app.mount("/", StaticFiles(directory=str(files("densemtl.demo.web") / "static"), html=True))
    app.middleware("http")(protect(host))
    return app


async def _receive_upload(request: Request) -> bytes | JSONResponse:
    """Return the uploaded file, or an error response."""
    if request.headers.get("content-type") != UPLOAD_TYPE:
        return _error(415, f"send the image file as {UPLOAD_TYPE}")
    try:
        data = await asyncio.wait_for(_read_body(request), UPLOAD_SECONDS)
    except asyncio.TimeoutError:
        return _error(408, f"the upload took longer than {UPLOAD_SECONDS} s (try again)")
    except ClientDisconnect:
        return _error(400, "the upload was interrupted (try again)")
    if data is None:
        return _error(413, f"this file is larger than {MAX_BYTES >> 20} MB (choose a smaller one)")
    return data


async def _read_body(request: Request) -> bytes | None:
    """Return the body of a request, which stays in memory; None if it is too large."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_BYTES:
            return None
    return bytes(body)


def _predict_upload(predictor: Predictor, data: bytes) -> JSONResponse:
    try:
        image = read_upload(data)
    except DataError as error:
        return _error(400, str(error))
    return JSONResponse(make_payload(image, predictor(image), predictor.tasks))


def _error(status: int, text: str) -> JSONResponse:
    return JSONResponse({"error": text}, status)

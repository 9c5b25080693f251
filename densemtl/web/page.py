"""The page: one viewer, whose upload event runs the network."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

from densemtl.errors import DataError
from densemtl.inference.predictor import Predictor
from densemtl.web.upload import MAX_BYTES, read_upload
from densemtl.web.views import describe

AT_ONCE, WAITING = 1, 8
"""Images that are predicted, and that wait for it; further ones are refused."""

TITLE = "densemtl"


def make_page(predictor: Predictor) -> gr.Blocks:
    """Gradio's blocks, not yet served."""

    def predict(event: gr.EventData) -> dict[str, Any]:
        return answer(predictor, event._data)

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        viewer = gr.HTML(
            value=None,
            html_template=_part("viewer.html"),
            css_template=_part("viewer.css"),
            tasks=", ".join(task.name for task in predictor.tasks),
            js_on_load=_part("viewer.js").replace("MAX_BYTES", str(MAX_BYTES)),
        )
        viewer.upload(predict, None, viewer, api_visibility="private", concurrency_limit=AT_ONCE)
    return page.queue(max_size=WAITING, default_concurrency_limit=AT_ONCE)


def theme() -> gr.themes.Base:
    """Fonts of the system: none is fetched."""
    return gr.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])


def answer(predictor: Predictor, upload: Any) -> dict[str, Any]:
    """What the page shows for an upload: predictions, or one line that says what is wrong with it.

    Args:
        predictor: the network.
        upload: {"name": of the file, "data": the file in base64}, as far as strangers keep to it.
    """
    upload = upload if isinstance(upload, dict) else {}
    name = str(upload.get("name", ""))[:200]
    try:
        image = read_upload(upload.get("data"))
    except DataError as error:
        return {"name": name, "error": str(error)}
    return {"name": name, **describe(image, predictor(image), predictor.tasks)}


def _part(name: str) -> str:
    return files("densemtl.web").joinpath(name).read_text(encoding="utf-8")

"""Conversion of predictions to JSON for the web page: images, values and legends.

The payload of a task is a dictionary:

    task      name
    picture   data URI of the colored map
    values    the map as base64 of deflated little-endian integers in row-major order
    bits      number of bits of each integer, 8 or 16
    channels  number of integers per pixel
    low, high values that 0 and the maximum integer represent; 0 and 255 for class ids
    unit      unit of the values
    classes   list of {name, color, share} for class ids; otherwise empty
    legend    {picture, captions} for numbers; otherwise None
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from densemtl.tasks.base import Task
from densemtl.tasks.binary import Binary
from densemtl.tasks.classification import Classification
from densemtl.tasks.direction import Direction
from densemtl.types import ColorRange, RGBImage
from densemtl.visualization.color_range import describe_limits, draw_color_scale

TaskPayload = dict[str, Any]
Map = NDArray[np.generic]

_LEGEND_SIZE = 160
"""Length of a color scale and diameter of a sphere in pixels."""


def make_payload(image: RGBImage, maps: Mapping[str, Map], tasks: Sequence[Task]) -> dict[str, Any]:
    """Convert an image and its predictions to a JSON object for the page.

    Args:
        image: RGB image, shape (H, W, 3), uint8.
        maps: {task: decoded prediction}, in the layout of `Sample.targets`.
        tasks: tasks in the order in which they are shown.

    Returns:
        Dictionary of `width`, `height`, `image` (a data URI) and `views`, the list of task
        payloads.
    """
    height, width = image.shape[:2]
    views = [_make_task_payload(task, maps[task.name]) for task in tasks]
    return {"width": width, "height": height, "image": _data_uri(image, ".jpg"), "views": views}


def _make_task_payload(task: Task, values: Map) -> TaskPayload:
    view = (
        _make_class_payload(task, values)
        if isinstance(task, Classification)
        else _make_numeric_payload(task, values)
    )
    return {"task": task.name, "picture": _data_uri(task.colorize(values)), **view}


def _make_class_payload(task: Classification, values: Map) -> TaskPayload:
    ids = values.astype(np.uint8)
    shares = np.bincount(ids.ravel(), minlength=task.channels)[: task.channels] / ids.size
    colors = task.colorize(np.arange(task.channels)[None])[0]
    classes = [
        {"name": name, "color": "#" + bytes(color).hex(), "share": float(share)}
        for name, color, share in zip(task.class_names, colors, shares, strict=True)
    ]
    return {**_pack_values(ids, 0, 255), "unit": "", "classes": classes, "legend": None}


def _make_numeric_payload(task: Task, values: Map) -> TaskPayload:
    numbers = values.astype(np.float32)
    finite = numbers[np.isfinite(numbers)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    levels = np.rint((np.nan_to_num(numbers) - low) * (65535 / max(high - low, 1e-9)))
    packed = _pack_values(levels.clip(0, 65535).astype("<u2"), low, high)
    return {**packed, "unit": task.unit, "classes": [], "legend": _make_legend(task, values)}


def _pack_values(values: NDArray[np.integer], low: float, high: float) -> TaskPayload:
    return {
        "values": base64.b64encode(zlib.compress(values.tobytes(), 6)).decode("ascii"),
        "bits": 8 * values.itemsize,
        "channels": 1 if values.ndim == 2 else values.shape[2],
        "low": low,
        "high": high,
    }


def _make_legend(task: Task, values: Map) -> TaskPayload | None:
    if isinstance(task, Direction):
        return {"picture": _data_uri(_draw_sphere(task), ".png"), "captions": []}
    if isinstance(task, Binary):
        return _make_scale(task, (0, 1), ["no", "yes"])
    if color_range := task.compute_color_range(values):
        return _make_scale(task, color_range, describe_limits(task, color_range))
    return None


def _make_scale(task: Task, color_range: ColorRange, captions: list[str]) -> TaskPayload:
    picture = draw_color_scale(task, color_range, _LEGEND_SIZE)
    return {"picture": _data_uri(picture), "captions": captions}


def _draw_sphere(task: Direction) -> RGBImage:
    """Draw a sphere seen from the front, on a white background."""
    x, y = np.meshgrid(*2 * [np.linspace(-1, 1, _LEGEND_SIZE, dtype=np.float32)])
    inside = x * x + y * y < 1
    z = -np.sqrt(np.where(inside, 1 - x * x - y * y, 0))
    picture = task.colorize(np.stack([x, y, z], -1)[..., : task.value_channels])
    return np.where(inside[..., None], picture, np.uint8(255))


def _data_uri(picture: RGBImage, suffix: str = ".png") -> str:
    """Encode an image as a data URI, so that the page needs no further requests."""
    _, data = cv2.imencode(suffix, np.ascontiguousarray(picture[..., ::-1]))
    kind = {".png": "png", ".jpg": "jpeg"}[suffix]
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode('ascii')}"

"""JSON payload of the web page: maps, classes, color scales and legends."""

from __future__ import annotations

import base64
import json
import zlib

import cv2
import numpy as np
import pytest

from densemtl.demo.web.payload import make_payload

SIZE = (6, 8)


def unpack(view) -> np.ndarray:
    """Decode a map in the same way as the page does."""
    data = zlib.decompress(base64.b64decode(view["values"]))
    levels = np.frombuffer(data, "u1" if view["bits"] == 8 else "<u2")
    values = view["low"] + levels * ((view["high"] - view["low"]) / (2 ** view["bits"] - 1))
    return values.reshape(*SIZE, view["channels"])


def picture(address: str) -> np.ndarray:
    kind, _, data = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/jpeg")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    return decoded[..., ::-1]


@pytest.fixture
def payload(make_task, draw_label, rng):
    """Return (tasks, maps, payload)."""
    tasks = [make_task(name) for name in ("semseg", "depth", "normals", "edge", "regression")]
    maps = {task.name: draw_label(task, SIZE, rng, void=0) for task in tasks}
    maps["edge"] = rng.random(SIZE).astype(np.float32)
    image = rng.integers(0, 256, (*SIZE, 3)).astype(np.uint8)
    shown = json.loads(json.dumps(make_payload(image, maps, tasks)))
    return tasks, maps, shown


def test_maps_are_decoded_unchanged(payload) -> None:
    tasks, maps, shown = payload
    assert (shown["height"], shown["width"]) == SIZE
    for task, view in zip(tasks, shown["views"], strict=True):
        values = np.asarray(maps[task.name], np.float64).reshape(*SIZE, -1)
        step = np.ptp(values) / 65535
        np.testing.assert_allclose(unpack(view), values, atol=step if view["bits"] == 16 else 0)
        np.testing.assert_array_equal(picture(view["picture"]), task.colorize(maps[task.name]))


def test_classes_have_names_colors_and_shares(payload) -> None:
    tasks, maps, shown = payload
    classes = shown["views"][0]["classes"]
    assert [each["name"] for each in classes] == ["wall", "floor", "chair"]
    for index, each in enumerate(classes):
        assert each["share"] == pytest.approx((maps["semseg"] == index).mean())
        color = tasks[0].colorize(np.array([[index]]))[0, 0]
        assert each["color"] == "#{:02x}{:02x}{:02x}".format(*color)


def test_numeric_tasks_have_legends(payload) -> None:
    _, maps, shown = payload
    depth, normals, edge = shown["views"][1:4]
    assert depth["unit"] == "m"
    low, high = np.percentile(maps["depth"], (1, 99))
    assert depth["legend"]["captions"] == [f"{low:.3g} m", f"{high:.3g} m"]
    scale = picture(depth["legend"]["picture"])
    shown = picture(depth["picture"])
    nearest = np.unravel_index(maps["depth"].argmin(), SIZE)
    np.testing.assert_array_equal(scale[0, 0], shown[nearest])
    assert edge["legend"]["captions"] == ["no", "yes"]
    ball = picture(normals["legend"]["picture"])
    np.testing.assert_allclose(
        ball[80, 80], [128, 128, 255], atol=2
    )  # the normal that faces the viewer
    assert (ball[0, 0] == 255).all()


def test_map_without_valid_pixels_has_a_payload(make_task) -> None:
    task = make_task("depth")
    image = np.zeros((*SIZE, 3), np.uint8)
    (view,) = make_payload(image, {"depth": np.full(SIZE, np.nan, np.float32)}, [task])["views"]
    assert (unpack(view) == 0).all()

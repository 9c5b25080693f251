"""Values of custom labels that would train without being what is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from densemtl import registry
from densemtl.data.datasets.folder import FolderDataset
from densemtl.errors import ConfigError, DataError
from densemtl.types import IGNORE_INDEX
from tests.helpers.fake_datasets import Array, write_array, write_image


def make(root: Path, label: Array, task: str = "semseg", **spec: Any) -> FolderDataset:
    """Write four images with the same label, and return the training split."""
    for name in "abcd":
        write_image(root / "images" / f"{name}.png", np.zeros((*label.shape[:2], 3), np.uint8))
        if label.dtype.kind == "f":
            write_array(root / "labels" / f"{name}.npy", label)
        else:
            write_image(root / "labels" / f"{name}.png", label)
    labels = {task: {"files": "labels", **spec}}
    options = {"root": root, "images": "images", "labels": labels}
    return registry.create("data.datasets", "folder", "train", [task], options=options)


def make_map(*values: float, dtype: Any = np.uint8) -> Array:
    return np.array([values, values], dtype)


@pytest.mark.parametrize("names", [["ground", "water"], ["water"], ["a", "b", "c"]])
def test_ignored_foreground_is_an_error(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(DataError, match=r"single class and 255.*semseg\.class_values.*\[255\]"):
        make(tmp_path, make_map(0, 0, 255), class_names=names)


def test_class_values_and_ignore_values_state_what_255_is(tmp_path: Path) -> None:
    stored, names = make_map(0, 0, 255), ["ground", "water"]
    as_class = make(tmp_path, stored, class_names=names, class_values=[0, 255])[0]
    np.testing.assert_array_equal(as_class.targets["semseg"], make_map(0, 0, 1))
    ignored = make(tmp_path, stored, class_names=names, ignore_values=[255])[0]
    np.testing.assert_array_equal(ignored.targets["semseg"], make_map(0, 0, IGNORE_INDEX))


def test_masks_with_two_classes_and_ignored_pixels_are_read(tmp_path: Path) -> None:
    sample = make(tmp_path, make_map(0, 1, 255), class_names=["a", "b"])[0]
    np.testing.assert_array_equal(sample.targets["semseg"], make_map(0, 1, 255))


@pytest.mark.parametrize(
    ("values", "first_class_id", "ignore_values"), [((0, 0), 1, [0]), ((0, 255), 1, [0])]
)
def test_entirely_ignored_masks_are_an_error(
    tmp_path: Path, values: tuple[int, ...], first_class_id: int, ignore_values: list[int]
) -> None:
    with pytest.raises(DataError, match="all pixels of the 3 checked semseg labels are ignored"):
        make(
            tmp_path,
            make_map(*values),
            class_names=["a", "b"],
            first_class_id=first_class_id,
            ignore_values=ignore_values,
        )


def test_entirely_ignored_numbers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all pixels of the 3 checked height labels are ignored"):
        make(tmp_path, make_map(7, 7), "height", kind="regression", ignore_values=[7])


def test_ambiguous_binary_masks_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"[ab]\.png: a binary map with both 1 and 255"):
        make(tmp_path, make_map(0, 1, 255), "water", kind="binary")
    sample = make(tmp_path, make_map(0, 1, 255), "water", kind="binary", ignore_values=[255])[0]
    np.testing.assert_array_equal(sample.targets["water"], make_map(0, 1, 255))


def test_soft_binary_maps_below_the_default_threshold_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sample = make(tmp_path, make_map(0, 64, 85, 255), "edge")[0]
    np.testing.assert_array_equal(sample.targets["edge"], make_map(0, 0, 0, 1))
    printed = capsys.readouterr().out
    assert "only 33.3% of the pixels above 0 in the 3 checked edge labels are positive" in printed


@pytest.mark.parametrize(
    ("stored", "options", "expected"),
    [
        ([0, 64, 255], {}, [0, 0, 1]),
        ([0, 64, 85, 255], {"threshold": 0.5}, [0, 0, 0, 1]),
        ([0, 64, 85, 255], {"threshold": 0.3}, [0, 0, 1, 1]),
        ([0, 0, 0], {}, [0, 0, 0]),
        ([0, 100, 100, 255], {"ignore_values": [100]}, [0, 255, 255, 1]),
    ],
)
def test_other_binary_maps_are_not_reported(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    stored: list[int],
    options: dict[str, Any],
    expected: list[int],
) -> None:
    sample = make(tmp_path, make_map(*stored), "edge", **options)[0]
    np.testing.assert_array_equal(sample.targets["edge"], make_map(*expected))
    assert "of the pixels above 0" not in capsys.readouterr().out


def test_threshold_is_only_for_binary_maps(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.depth\.threshold: is only for binary"):
        make(tmp_path, make_map(0, 1), "depth", threshold=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_values": [0]}, "1 values for 2 class_names"),
        ({"class_values": [3, 3]}, "listed twice"),
        ({"class_values": [0, 255], "ignore_values": [255]}, "in ignore_values"),
        ({"class_values": [0, 255], "first_class_id": 1}, "replaces first_class_id"),
    ],
)
def test_errors_in_class_values(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"labels\.semseg\.class_values: .*{message}"):
        make(tmp_path, make_map(0, 255), class_names=["a", "b"], **options)


def test_depth_of_8_bits_needs_a_scale(tmp_path: Path) -> None:
    stored = make_map(0, 20, 200)
    with pytest.raises(DataError, match=r"\.png: 8-bit depth has no unit.*scale"):
        make(tmp_path, stored, "depth")[0]
    depth = make(tmp_path, stored, "depth", scale=0.1)[0].targets["depth"]
    np.testing.assert_allclose(depth, make_map(np.nan, 2, 20, dtype=np.float32))


@pytest.mark.parametrize(
    ("stored", "options"),
    [
        (make_map(2, 65504, dtype=np.float16), {}),
        (make_map(2, 65504, dtype=np.float32), {}),
        (make_map(2, np.inf, dtype=np.float32), {}),
        (make_map(2000, 65535, dtype=np.uint16), {}),
        (make_map(200, 65535, dtype=np.uint16), {"scale": 0.01}),
    ],
)
def test_depth_of_the_sky_is_unknown(
    tmp_path: Path, stored: Array, options: dict[str, Any]
) -> None:
    depth = make(tmp_path, stored, "depth", **options)[0].targets["depth"]
    np.testing.assert_allclose(depth, make_map(2, np.nan, dtype=np.float32))


def test_depth_in_another_unit_is_an_error(tmp_path: Path) -> None:
    stored = make_map(1500, 2500, dtype=np.float32)
    with pytest.raises(DataError, match=r"depth of 2500 m; floats must be meters.*scale"):
        make(tmp_path, stored, "depth")[0]
    depth = make(tmp_path, stored, "depth", scale=1.0)[0].targets["depth"]
    np.testing.assert_array_equal(depth, stored)

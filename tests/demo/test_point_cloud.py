"""Point clouds compared with a pinhole camera computed by hand, and their PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from densemtl.demo.point_cloud import PointCloudBuilder, assume_intrinsics, unproject, write_ply
from densemtl.errors import ConfigError
from densemtl.transforms.camera import Intrinsics

CAMERA = Intrinsics(10.0, 20.0, 1.0, 0.5)


def read_ply(file: Path):
    """Read a PLY file, implemented from the specification of the format."""
    header, _, body = file.read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    count = int(next(line for line in lines if line.startswith("element vertex")).split()[2])
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in lines if line.startswith("property")]
    vertices = np.frombuffer(body, [(name, kinds[kind]) for kind, name in fields])
    assert len(vertices) == count
    return vertices, lines


def columns(vertices, names):
    return np.stack([vertices[name] for name in names.split()], -1)


def test_unproject_matches_pinhole_camera() -> None:
    points = unproject(np.array([[2, 4, 6], [1, 1, 1]], np.float32), CAMERA)
    # x = (u - 1) / 10 z, y = (v - 0.5) / 20 z
    expected = [
        [[-0.2, -0.05, 2], [0, -0.1, 4], [0.6, -0.15, 6]],
        [[-0.1, 0.025, 1], [0, 0.025, 1], [0.1, 0.025, 1]],
    ]
    np.testing.assert_allclose(points, expected, rtol=1e-6, atol=1e-7)


def test_point_cloud_of_wall_at_two_meters(make_task, tmp_path: Path) -> None:
    """With a focal length of 0.81 widths, half the wall's width is 2 (w - 1) / 2 / (0.81 w)."""
    depth = np.full((30, 40), 2, np.float32)
    image = np.full((30, 40, 3), (10, 120, 250), np.uint8)
    cloud = PointCloudBuilder([make_task("depth")])(image, {"depth": depth})
    write_ply(tmp_path / "wall.ply", cloud)
    vertices, lines = read_ply(tmp_path / "wall.ply")
    x, y, z = columns(vertices, "x y z").T
    assert len(vertices) == 1200
    np.testing.assert_array_equal(z, 2)
    assert x.max() == pytest.approx(2 * 19.5 / (0.81 * 40), rel=1e-6) == -x.min()
    assert y.max() == pytest.approx(2 * 14.5 / (0.81 * 40), rel=1e-6) == -y.min()
    assert x[0] < x[39]
    assert y[0] < y[-1]
    np.testing.assert_allclose(columns(vertices, "nx ny nz"), [[0, 0, -1]] * 1200, atol=1e-3)
    assert (columns(vertices, "red green blue") == (10, 120, 250)).all()
    assert any("assumed, focal length 0.81 widths" in line for line in lines)


def test_point_cloud_uses_predicted_normals_and_omits_invalid_pixels(
    make_task, rng: np.random.Generator, tmp_path: Path
) -> None:
    tasks = [make_task("depth"), make_task("normals")]
    depth = rng.uniform(1, 5, (4, 5)).astype(np.float32)
    depth[0, 0], depth[1, 1], depth[2, 2] = np.nan, 0, -3
    normals = rng.normal(size=(4, 5, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    normals[3, 3] = np.nan
    image = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    maps = {"depth": depth, "normals": normals}
    cloud = PointCloudBuilder(tasks, "normals", CAMERA)(image, maps)
    write_ply(tmp_path / "a.ply", cloud)
    vertices, lines = read_ply(tmp_path / "a.ply")
    valid = np.ones((4, 5), bool)
    valid[[0, 1, 2, 3], [0, 1, 2, 3]] = False
    np.testing.assert_array_equal(vertices["z"], depth[valid])
    np.testing.assert_array_equal(columns(vertices, "nx ny nz"), normals[valid])
    colors = tasks[1].colorize(normals)[valid]
    np.testing.assert_array_equal(columns(vertices, "red green blue"), colors)
    assert any("intrinsics given: fx 10 fy 20 cx 1 cy 0.5" in line for line in lines)


def test_assumed_field_of_view_is_63_degrees() -> None:
    camera = assume_intrinsics((480, 640))
    assert 2 * np.degrees(np.arctan(320 / camera.fx)) == pytest.approx(63.4, abs=0.1)
    assert (camera.cx, camera.cy) == (319.5, 239.5)
    assert camera.fx == camera.fy


def test_missing_depth_or_color_task_is_config_error(make_task) -> None:
    with pytest.raises(ConfigError, match="--points: needs depth, but the model predicts semseg"):
        PointCloudBuilder([make_task("semseg")])
    with pytest.raises(
        ConfigError, match=r"no task 'normal' for colors \(choose from image, depth"
    ):
        PointCloudBuilder([make_task("depth")], "normal")

"""Point clouds from predicted depth, with normals and colors, and PLY files of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densemtl.data.derived_labels import normals_from_depth
from densemtl.errors import ConfigError
from densemtl.io.atomic import atomic_write
from densemtl.tasks.base import Task
from densemtl.tasks.depth import Depth
from densemtl.tasks.normals import Normals
from densemtl.transforms.camera import Intrinsics
from densemtl.types import RGBImage, Size

DEFAULT_FOCAL_LENGTH = 0.81
"""Assumed focal length in image widths; the horizontal field of view is 63 degrees, as of a Kinect
or a mobile phone."""

IMAGE_COLORS = "image"
"""Color source of points that have the colors of the image instead of those of a task."""

VERTEX_DTYPE = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)
"""Layout of a vertex in PLY files."""


@dataclass(frozen=True)
class PointCloud:
    """N points in camera coordinates: x right, y down, z forward.

    Attributes:
        positions: positions in meters, shape (N, 3), float32.
        normals: unit vectors that face the camera, shape (N, 3), float32.
        colors: RGB colors, shape (N, 3), uint8.
        comment: description of units, axes and intrinsics, for the PLY file.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colors: NDArray[np.uint8]
    comment: str


@dataclass(frozen=True)
class PointCloudBuilder:
    """Converter from predictions to point clouds.

    Attributes:
        tasks: tasks that the model predicts; one of them must be depth.
        color_source: `image`, or the task whose colors the points have.
        intrinsics: intrinsics of all images in pixels; by default, a focal length of
            `DEFAULT_FOCAL_LENGTH` image widths and the center of the image are assumed.

    Raises:
        ConfigError: if the tasks include no depth, or `color_source` is not one of them.
    """

    tasks: Sequence[Task]
    color_source: str = IMAGE_COLORS
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if _find_task(self.tasks, Depth) is None:
            raise ConfigError(f"--points: needs depth, but the model predicts {', '.join(names)}")
        if self.color_source not in (IMAGE_COLORS, *names):
            choices = ", ".join((IMAGE_COLORS, *names))
            raise ConfigError(
                f"--points: no task {self.color_source!r} for colors (choose from {choices})"
            )

    def __call__(self, image: RGBImage, maps: Mapping[str, NDArray[np.generic]]) -> PointCloud:
        """Convert the predictions of one image to a point cloud.

        Pixels with unknown or non-positive depth, or with unknown normals, are omitted.

        Args:
            image: RGB image, shape (H, W, 3), uint8.
            maps: {task: decoded prediction}, in the layout of `Sample.targets`. If they include no
                normals, normals are estimated from the depth.

        Returns:
            One point per valid pixel.
        """
        depth_task, normals_task = _find_task(self.tasks, Depth), _find_task(self.tasks, Normals)
        assert depth_task
        depth = maps[depth_task.name].astype(np.float32)
        camera = self.intrinsics or assume_intrinsics((depth.shape[0], depth.shape[1]))
        depth = np.where(depth > 0, depth, np.float32(np.nan))
        facing = (
            normals_from_depth(depth, camera) if normals_task is None else maps[normals_task.name]
        )
        valid = np.isfinite(depth) & np.isfinite(facing).all(-1)
        colors = image if self.color_source == IMAGE_COLORS else self._colorize(maps)
        positions = unproject(depth, camera)
        normal = facing[valid].astype(np.float32)
        return PointCloud(positions[valid], normal, colors[valid], self._make_comment(camera))

    def _colorize(self, maps: Mapping[str, NDArray[np.generic]]) -> RGBImage:
        task = next(task for task in self.tasks if task.name == self.color_source)
        return task.colorize(maps[task.name])

    def _make_comment(self, intrinsics: Intrinsics) -> str:
        origin = (
            "given" if self.intrinsics else f"assumed, focal length {DEFAULT_FOCAL_LENGTH} widths"
        )
        values = (
            f"fx {intrinsics.fx:g} fy {intrinsics.fy:g} cx {intrinsics.cx:g} cy {intrinsics.cy:g}"
        )
        return f"meters; x right, y down, z forward; intrinsics {origin}: {values}"


def assume_intrinsics(size: Size) -> Intrinsics:
    """Return intrinsics with square pixels and the principal point in the center of the image.

    Args:
        size: (height, width) of the image in pixels.

    Returns:
        Intrinsics with a focal length of `DEFAULT_FOCAL_LENGTH` image widths.
    """
    height, width = size
    return Intrinsics(
        DEFAULT_FOCAL_LENGTH * width,
        DEFAULT_FOCAL_LENGTH * width,
        (width - 1) / 2,
        (height - 1) / 2,
    )


def unproject(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """Compute 3D points from depth: z ((u - cx) / fx, (v - cy) / fy, 1) for the pixel (u, v).

    Args:
        depth: depth along the optical axis in meters, shape (H, W).
        intrinsics: focal lengths and principal point in pixels.

    Returns:
        Points in camera coordinates in meters, shape (H, W, 3), float32.
    """
    rows, columns = np.indices(depth.shape, np.float32)
    x, y = (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    return np.stack([x * depth, y * depth, depth], -1).astype(np.float32)


def write_ply(file: Path, cloud: PointCloud) -> None:
    """Write a point cloud as a binary little-endian PLY file.

    Vertices have the properties float x y z nx ny nz and uchar red green blue.

    Args:
        file: path of the file.
        cloud: points to write.
    """
    vertices = np.empty(len(cloud.positions), VERTEX_DTYPE)
    columns = np.concatenate([cloud.positions, cloud.normals], 1).T
    for name, values in zip(VERTEX_DTYPE.names or (), [*columns, *cloud.colors.T], strict=True):
        vertices[name] = values
    with atomic_write(file) as tmp_path:
        tmp_path.write_bytes(_make_header(cloud) + vertices.tobytes())


def _make_header(cloud: PointCloud) -> bytes:
    kinds = {"f": "float", "u": "uchar"}
    properties = [
        f"property {kinds[VERTEX_DTYPE[name].kind]} {name}" for name in VERTEX_DTYPE.names or ()
    ]
    lines = ["ply", "format binary_little_endian 1.0", f"comment {cloud.comment}"]
    lines += [f"element vertex {len(cloud.positions)}", *properties, "end_header"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _find_task(tasks: Sequence[Task], kind: type[Task]) -> Task | None:
    return next((task for task in tasks if isinstance(task, kind)), None)

"""Predicted depth as points in space, with normals and colours, and their PLY files."""

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
"""Assumed focal length in picture widths, 63 degrees across: a Kinect, or a telephone."""

IMAGE_COLORS = "image"
"""Colours of the photograph, where others are those of a task."""

VERTEX_DTYPE = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)


@dataclass(frozen=True)
class PointCloud:
    """N points in the camera's axes: x right, y down, z forward.

    Attributes:
        positions: Nx3 float32, metres.
        normals: Nx3 float32 unit vectors that face the camera.
        colors: Nx3 uint8 RGB.
        comment: how they were made.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colors: NDArray[np.uint8]
    comment: str


@dataclass(frozen=True)
class PointCloudBuilder:
    """Makes point clouds of a network's predictions.

    Attributes:
        tasks: what the network predicts.
        color_source: `image`, or the task whose colours the points have.
        intrinsics: of all pictures; None assumes `DEFAULT_FOCAL_LENGTH` and the centre.

    Raises:
        ConfigError: no depth among the tasks, or no such task to colour by.
    """

    tasks: Sequence[Task]
    color_source: str = IMAGE_COLORS
    intrinsics: Intrinsics | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if _find_task(self.tasks, Depth) is None:
            raise ConfigError(f"--points: needs depth; this network predicts {', '.join(names)}")
        if self.color_source not in (IMAGE_COLORS, *names):
            choices = ", ".join((IMAGE_COLORS, *names))
            raise ConfigError(
                f"--points: no {self.color_source!r} to colour by; there are {choices}"
            )

    def __call__(self, image: RGBImage, maps: Mapping[str, NDArray[np.generic]]) -> PointCloud:
        """Every pixel whose depth is known and positive, and whose normal is known.

        Args:
            image: HxWx3 uint8 RGB.
            maps: {task: decoded prediction in a `Sample`'s layout}. Normals, where they are not
                among them, are fitted to the depth.
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
        colours = image if self.color_source == IMAGE_COLORS else self._colorize(maps)
        positions = unproject(depth, camera)
        normal = facing[valid].astype(np.float32)
        return PointCloud(positions[valid], normal, colours[valid], self._make_comment(camera))

    def _colorize(self, maps: Mapping[str, NDArray[np.generic]]) -> RGBImage:
        task = next(task for task in self.tasks if task.name == self.color_source)
        return task.colorize(maps[task.name])

    def _make_comment(self, intrinsics: Intrinsics) -> str:
        how = "given" if self.intrinsics else f"assumed, focal length {DEFAULT_FOCAL_LENGTH} widths"
        values = (
            f"fx {intrinsics.fx:g} fy {intrinsics.fy:g} cx {intrinsics.cx:g} cy {intrinsics.cy:g}"
        )
        return f"metres; x right, y down, z forward; intrinsics {how}: {values}"


def assume_intrinsics(size: Size) -> Intrinsics:
    """Return intrinsics with square pixels and the principal point in the center of the image."""
    height, width = size
    return Intrinsics(
        DEFAULT_FOCAL_LENGTH * width,
        DEFAULT_FOCAL_LENGTH * width,
        (width - 1) / 2,
        (height - 1) / 2,
    )


def unproject(depth: NDArray[np.float32], intrinsics: Intrinsics) -> NDArray[np.float32]:
    """HxW metres along the optical axis -> HxWx3 metres: z ((u - cx) / fx, (v - cy) / fy, 1)."""
    rows, columns = np.indices(depth.shape, np.float32)
    x, y = (columns - intrinsics.cx) / intrinsics.fx, (rows - intrinsics.cy) / intrinsics.fy
    return np.stack([x * depth, y * depth, depth], -1).astype(np.float32)


def write_ply(file: Path, cloud: PointCloud) -> None:
    """Binary little-endian PLY: float x y z nx ny nz, uchar red green blue."""
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

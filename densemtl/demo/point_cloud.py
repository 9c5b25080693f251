"""Predicted depth as points in space, with normals and colours, and their PLY files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from densemtl.io.atomic import replacing
from densemtl.data.derived_labels import Intrinsics, normals
from densemtl.errors import ConfigError
from densemtl.tasks.base import Task
from densemtl.tasks.depth import Depth
from densemtl.tasks.normals import Normals
from densemtl.types import Size
from densemtl.visualization.panels import Picture

FOCAL = 0.81
"""Assumed focal length in picture widths, 63 degrees across: a Kinect, or a telephone."""

IMAGE = "image"
"""Colours of the photograph, where others are those of a task."""

VERTEX = np.dtype(
    [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    + [(name, "u1") for name in ("red", "green", "blue")]
)


@dataclass(frozen=True)
class PointCloud:
    """N points in the camera's axes: x right, y down, z forward.

    Attributes:
        positions: Nx3 float32, metres.
        normals: Nx3 float32 unit vectors that face the camera.
        colours: Nx3 uint8 RGB.
        remark: how they were made.
    """

    positions: NDArray[np.float32]
    normals: NDArray[np.float32]
    colours: NDArray[np.uint8]
    remark: str


@dataclass(frozen=True)
class PointMaker:
    """Makes point clouds of a network's predictions.

    Attributes:
        tasks: what the network predicts.
        colour: `image`, or the task whose colours the points have.
        camera: of all pictures; None assumes `FOCAL` and the centre.

    Raises:
        ConfigError: no depth among the tasks, or no such task to colour by.
    """

    tasks: Sequence[Task]
    colour: str = IMAGE
    camera: Intrinsics | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if _first(self.tasks, Depth) is None:
            raise ConfigError(f"--points: needs depth; this network predicts {', '.join(names)}")
        if self.colour not in (IMAGE, *names):
            known = ", ".join((IMAGE, *names))
            raise ConfigError(f"--points: no {self.colour!r} to colour by; there are {known}")

    def __call__(self, image: Picture, maps: Mapping[str, NDArray[np.generic]]) -> PointCloud:
        """Every pixel whose depth is known and positive, and whose normal is known.

        Args:
            image: HxWx3 uint8 RGB.
            maps: {task: decoded prediction in a `Sample`'s layout}. Normals, where they are not
                among them, are fitted to the depth.
        """
        depth_task, normals_task = _first(self.tasks, Depth), _first(self.tasks, Normals)
        assert depth_task
        depth = maps[depth_task.name].astype(np.float32)
        camera = self.camera or assumed_camera((depth.shape[0], depth.shape[1]))
        depth = np.where(depth > 0, depth, np.float32(np.nan))
        facing = normals(depth, camera) if normals_task is None else maps[normals_task.name]
        known = np.isfinite(depth) & np.isfinite(facing).all(-1)
        colours = image if self.colour == IMAGE else self._coloured(maps)
        positions = unproject(depth, camera)
        normal = facing[known].astype(np.float32)
        return PointCloud(positions[known], normal, colours[known], self._remark(camera))

    def _coloured(self, maps: Mapping[str, NDArray[np.generic]]) -> Picture:
        task = next(task for task in self.tasks if task.name == self.colour)
        return task.colour(maps[task.name])

    def _remark(self, camera: Intrinsics) -> str:
        how = "given" if self.camera else f"assumed, focal length {FOCAL} widths"
        values = f"fx {camera.fx:g} fy {camera.fy:g} cx {camera.cx:g} cy {camera.cy:g}"
        return f"metres; x right, y down, z forward; intrinsics {how}: {values}"


def assumed_camera(size: Size) -> Intrinsics:
    """Square pixels, `FOCAL` widths, the principal point in the middle of a picture."""
    height, width = size
    return Intrinsics(FOCAL * width, FOCAL * width, (width - 1) / 2, (height - 1) / 2)


def unproject(depth: NDArray[np.float32], camera: Intrinsics) -> NDArray[np.float32]:
    """HxW metres along the optical axis -> HxWx3 metres: z ((u - cx) / fx, (v - cy) / fy, 1)."""
    rows, columns = np.indices(depth.shape, np.float32)
    x, y = (columns - camera.cx) / camera.fx, (rows - camera.cy) / camera.fy
    return np.stack([x * depth, y * depth, depth], -1).astype(np.float32)


def write_ply(file: Path, cloud: PointCloud) -> None:
    """Binary little-endian PLY: float x y z nx ny nz, uchar red green blue."""
    vertices = np.empty(len(cloud.positions), VERTEX)
    columns = np.concatenate([cloud.positions, cloud.normals], 1).T
    for name, values in zip(VERTEX.names or (), [*columns, *cloud.colours.T], strict=True):
        vertices[name] = values
    with replacing(file) as draft:
        draft.write_bytes(_header(cloud) + vertices.tobytes())


def _header(cloud: PointCloud) -> bytes:
    kinds = {"f": "float", "u": "uchar"}
    properties = [f"property {kinds[VERTEX[name].kind]} {name}" for name in VERTEX.names or ()]
    lines = ["ply", "format binary_little_endian 1.0", f"comment {cloud.remark}"]
    lines += [f"element vertex {len(cloud.positions)}", *properties, "end_header"]
    return ("\n".join(lines) + "\n").encode("ascii")


def _first(tasks: Sequence[Task], kind: type[Task]) -> Task | None:
    return next((task for task in tasks if isinstance(task, kind)), None)

"""The renderer against independent geometry, and label transforms against the renderer."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from densemtl.data.datasets.synthetic_scenes.camera import Camera
from densemtl.data.datasets.synthetic_scenes.classes import get_class_id
from densemtl.data.datasets.synthetic_scenes.compose import generate_room
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder, Primitive
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene, render
from densemtl.data.datasets.synthetic_scenes.scene import Scene, ShapeArrays
from densemtl.data.datasets.synthetic_scenes.textures import Surface
from densemtl.data.datasets.synthetic_scenes.trace import trace_rays
from densemtl.tasks.base import Task
from densemtl.transforms.geometry import GeometricTransform
from densemtl.types import Size

SIZE: Size = (96, 120)
SCENES = (0, 1, 2)
GRAY = Surface((0.5, 0.5, 0.5))


def make_scene(number: int) -> Scene:
    return generate_room(np.random.default_rng(number))


def render_scene(scene: Scene, size: Size = SIZE) -> RenderedScene:
    return render(scene, scene.camera, size)


def compute_rays(camera: Camera, size: Size) -> NDArray[np.float32]:
    columns, rows = camera.compute_ray_slopes(size)
    return np.stack([*np.meshgrid(columns, rows), np.ones(size, np.float32)], -1)


def find_flat_pixels(scene: Scene, camera: Camera, size: Size = SIZE) -> NDArray[np.bool_]:
    """Return the pixels whose 3x3 neighborhood shows one flat face of one shape."""
    index = trace_rays(ShapeArrays.from_primitives(scene.primitives), camera, size).shape_index
    faces = np.dstack([index, render(scene, camera, size).normals])
    flat = np.ones(size, np.uint8)
    for axis in (0, 1):
        for step in (-1, 1):
            flat &= (np.abs(faces - np.roll(faces, step, axis)) < 1e-4).all(-1)
    flat[[0, -1]] = flat[:, [0, -1]] = 0
    return cv2.erode(flat, np.ones((3, 3), np.uint8), borderValue=0).astype(bool)


def compute_angles(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.degrees(np.arccos(np.clip((a * b).sum(-1), -1, 1)))


@pytest.mark.parametrize("number", SCENES)
def test_normals_are_unit_vectors_that_face_the_camera(number: int) -> None:
    scene = make_scene(number)
    view = render_scene(scene)
    np.testing.assert_allclose(np.linalg.norm(view.normals, axis=-1), 1, atol=1e-5)
    assert ((view.normals * compute_rays(scene.camera, SIZE)).sum(-1) < 0).all()


@pytest.mark.parametrize("number", SCENES)
def test_normals_from_depth_match_normals_on_flat_faces(number: int) -> None:
    scene = make_scene(number)
    view = render_scene(scene)
    points = compute_rays(scene.camera, SIZE) * view.depth[..., None]
    across = np.roll(points, -1, 1) - np.roll(points, 1, 1)
    along = np.roll(points, -1, 0) - np.roll(points, 1, 0)
    derived = np.cross(along, across)
    derived /= np.linalg.norm(derived, axis=-1, keepdims=True) + 1e-12
    flat = find_flat_pixels(scene, scene.camera)
    assert flat.mean() > 0.3
    wrong = compute_angles(derived, view.normals)[flat]
    assert np.median(wrong) < 0.1
    assert wrong.max() < 1


def enclose(primitives: list[Primitive]) -> Scene:
    """Return a scene of shapes in an otherwise empty cube with half side 2 m."""
    shell = ObjectBuilder(0, 0, 0, get_class_id("wall"), 0, primitives=primitives)
    for axis in range(3):
        for side in (-1, 1):
            center, size = [0.0] * 3, [5.0] * 3
            center[axis], size[axis] = side * 2.5, 1.0
            shell.add_box((center[0], center[1], center[2]), (size[0], size[1], size[2]), GRAY)
    scene = make_scene(0)
    return replace(scene, primitives=tuple(primitives), room_size=(4.0, 4.0, 4.0))


def test_wall_straight_ahead_has_constant_depth() -> None:
    view = render(enclose([]), Camera((0, 0, -1)), SIZE)
    middle = (slice(30, 66), slice(40, 80))
    np.testing.assert_allclose(view.depth[middle], 3, atol=1e-5)
    np.testing.assert_allclose(view.normals[middle], np.broadcast_to([0, 0, -1], (36, 40, 3)))


def test_sphere_matches_the_quadratic_formula() -> None:
    ball = ObjectBuilder(0.2, 0.3, 0, get_class_id("plant"), 1)
    ball.add_ellipsoid((0, 0.1, 0), (1, 1, 1), GRAY)
    camera = Camera((0, 0, -1.5))
    view = render(enclose(ball.primitives), camera, SIZE)
    direction = compute_rays(camera, SIZE).astype(np.float64)
    offset = np.array(camera.position) - [0.2, -0.1, 0.3]
    a, b = (direction**2).sum(-1), direction @ offset
    discriminant = b**2 - a * (offset @ offset - 0.25)
    hit = view.instance == 1
    np.testing.assert_array_equal(hit, discriminant > 0)
    depth = (-b - np.sqrt(np.where(discriminant > 0, discriminant, 0))) / a
    np.testing.assert_allclose(view.depth[hit], depth[hit], rtol=1e-4)
    normal = (offset + direction * depth[..., None])[hit] / 0.5
    assert compute_angles(view.normals[hit], normal.astype(np.float32)).max() < 0.5


def test_capsule_points_have_the_distance_of_its_radius_from_its_axis() -> None:
    start, end = np.array([-0.6, -0.2, 0.1]), np.array([0.5, -0.7, 0.6])
    limb = ObjectBuilder(0, 0, 0, get_class_id("person"), 1)
    limb.add_capsule((-0.6, 0.2, 0.1), (0.5, 0.7, 0.6), 0.25, GRAY, part=1)
    camera = Camera((0, -0.4, -1.5))
    view = render(enclose(limb.primitives), camera, SIZE)
    hit = view.parts == 1
    points = (np.array(camera.position) + compute_rays(camera, SIZE) * view.depth[..., None])[hit]
    share = np.clip((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0, 1)
    distance = np.linalg.norm(points - (start + share[:, None] * (end - start)), axis=1)
    assert hit.sum() > 300
    np.testing.assert_allclose(distance, 0.25, atol=1e-3)


@pytest.mark.parametrize("angle", [-25.0, 10.0, 40.0])
@pytest.mark.parametrize("number", SCENES)
def test_rotated_labels_match_a_rolled_camera(
    number: int, angle: float, make_task: Callable[..., Task]
) -> None:
    """An image of a camera rolled clockwise is rotated counter-clockwise; depth is unchanged."""
    scene = make_scene(number)
    size = (100, 100)
    plain = render_scene(scene, size)
    camera = replace(scene.camera, roll=scene.camera.roll + math.radians(angle))
    rolled = render(scene, camera, size)
    geometry = GeometricTransform((0, 0, *size), size, angle=angle)
    classes = make_task("semseg").transform_label(plain.semseg, geometry)
    normals = make_task("normals").transform_label(plain.normals, geometry)
    depth = make_task("depth").transform_label(plain.depth, geometry)
    valid = (classes != 255) & find_flat_pixels(scene, camera, size)
    assert valid.mean() > 0.25
    assert (classes == rolled.semseg)[valid].mean() > 0.99
    assert np.median(compute_angles(normals, rolled.normals)[valid]) < 0.1
    assert (compute_angles(normals, rolled.normals)[valid] < 1).mean() > 0.98
    assert np.median(np.abs(depth / rolled.depth - 1)[valid]) < 0.01


def shrink_scene(scene: Scene, zoom: float) -> Scene:
    """Return the scene at 1 / zoom of its size, including the position of its camera."""
    position = np.array(scene.camera.position)
    primitives = tuple(
        shape._replace(
            center=tuple((np.array(shape.center) / zoom).tolist()),
            scale=tuple((np.array(shape.scale) / zoom).tolist()),
        )
        for shape in scene.primitives
    )
    camera = replace(scene.camera, position=tuple((position / zoom).tolist()))
    return replace(scene, primitives=primitives, camera=camera)


@pytest.mark.parametrize("number", SCENES)
def test_zoomed_depth_matches_a_smaller_scene_with_a_longer_focal_length(
    number: int, make_task: Callable[..., Task]
) -> None:
    """Depth divided by the zoom is exact for a smaller scene and a longer focal length.

    A longer focal length alone magnifies the image and does not change depth. A network assumes a
    constant focal length, so the magnified image looks to it like an image of a closer scene. A
    crop that is magnified by `zoom` shows, ray by ray, the scene scaled by 1 / zoom around the
    camera at a focal length multiplied by `zoom`: the ray directions are those of the magnified
    image, and each depth is divided by `zoom`.
    """
    zoom, scene = 2, make_scene(number)
    plain = render_scene(scene)
    near = shrink_scene(scene, zoom)
    camera = replace(near.camera, focal_length=scene.camera.focal_length * zoom)
    closer = render(near, camera, SIZE)
    box = (SIZE[0] // 4, SIZE[1] // 4, SIZE[0] // 2, SIZE[1] // 2)
    geometry = GeometricTransform(box, SIZE, scale=zoom)
    classes = make_task("semseg").transform_label(plain.semseg, geometry)
    depth = make_task("depth").transform_label(plain.depth, geometry)
    flat = find_flat_pixels(near, camera)
    assert (classes == closer.semseg)[flat].mean() > 0.98
    error = np.abs(depth / closer.depth - 1)[flat]
    assert np.median(error) < 0.01
    assert np.quantile(error, 0.95) < 0.03
    wrong = np.abs(plain.depth[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]).mean()
    assert wrong > 1.9 * depth.mean()


def mirror_scene(scene: Scene) -> Scene:
    """Return the scene and its camera reflected in the plane x = 0."""

    def reflect(shape: Primitive) -> Primitive:
        x, y, z = shape.center
        # Each local axis is reflected. Shapes are symmetric, so handedness does not matter.
        axes = np.array(shape.axes).reshape(3, 3) * [-1, 1, 1]
        return shape._replace(center=(-x, y, z), axes=tuple(axes.ravel().tolist()))

    x, y, z = scene.camera.position
    camera = replace(
        scene.camera, position=(-x, y, z), yaw=-scene.camera.yaw, roll=-scene.camera.roll
    )
    lamp = scene.light.position
    light = replace(scene.light, position=(-lamp[0], lamp[1], lamp[2]))
    return replace(
        scene, primitives=tuple(map(reflect, scene.primitives)), camera=camera, light=light
    )


@pytest.mark.parametrize("number", SCENES)
def test_flipped_labels_match_a_mirrored_scene(number: int, make_task: Callable[..., Task]) -> None:
    scene = make_scene(number)
    plain, mirror = (
        render_scene(scene),
        render(mirror_scene(scene), mirror_scene(scene).camera, SIZE),
    )
    flip = GeometricTransform((0, 0, *SIZE), SIZE, flip=True)
    for task, label, expected in (
        ("semseg", plain.semseg, mirror.semseg),
        ("human_parts", plain.parts, mirror.parts),
    ):
        assert (make_task(task).transform_label(label, flip) == expected).mean() > 0.999
    depth = make_task("depth").transform_label(plain.depth, flip)
    assert (np.abs(depth - mirror.depth) < 1e-3).mean() > 0.998
    normals = make_task("normals").transform_label(plain.normals, flip)
    assert (np.abs(normals - mirror.normals).max(-1) < 1e-3).mean() > 0.995
    difference = np.abs(flip.apply_image(plain.image).astype(int) - mirror.image)
    assert np.median(difference) <= 1
    assert difference.mean() < 4

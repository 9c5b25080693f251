"""Contents of generated rooms, and valid positions of their objects."""

from __future__ import annotations

import numpy as np
import pytest

from densemtl.data.datasets.synthetic_scenes.classes import (
    CLASSES,
    PARTS,
    get_class_id,
    get_part_id,
)
from densemtl.data.datasets.synthetic_scenes.compose import generate_room
from densemtl.data.datasets.synthetic_scenes.plan import FloorPlan, FreeArea, is_overlapping
from densemtl.data.datasets.synthetic_scenes.render import RenderedScene, render
from densemtl.data.datasets.synthetic_scenes.scene import Scene, ShapeArrays
from densemtl.data.datasets.synthetic_scenes.targets import find_object_edges, find_salient_object
from densemtl.types import IGNORE_INDEX

NUM_SCENES = 200
SMALL = (48, 60)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [generate_room(np.random.default_rng((5, number))) for number in range(NUM_SCENES)]


@pytest.fixture(scope="module")
def views(scenes: list[Scene]) -> list[RenderedScene]:
    return [render(scene, scene.camera, SMALL) for scene in scenes]


def test_every_class_and_part_occurs(views: list[RenderedScene]) -> None:
    assert {value for view in views for value in np.unique(view.semseg).tolist()} == set(
        range(len(CLASSES))
    )
    assert {value for view in views for value in np.unique(view.parts).tolist()} == set(
        range(len(PARTS))
    )


def test_no_class_dominates_the_images(views: list[RenderedScene]) -> None:
    share = (
        np.bincount(np.concatenate([view.semseg.ravel() for view in views])) / views[0].depth.size
    )
    assert share.max() < 0.5 * NUM_SCENES
    assert share[get_class_id("person")] > 0.02 * NUM_SCENES
    assert all(np.bincount(view.semseg.ravel()).max() < 0.9 * view.semseg.size for view in views)


def test_many_but_not_all_images_show_people(views: list[RenderedScene]) -> None:
    assert 0.3 < np.mean([view.parts.any() for view in views]) < 0.9


def test_parts_cover_exactly_the_people(views: list[RenderedScene]) -> None:
    for view in views:
        np.testing.assert_array_equal(view.parts > 0, view.semseg == get_class_id("person"))


def test_rooms_are_closed_and_larger_than_a_minimum(
    views: list[RenderedScene], scenes: list[Scene]
) -> None:
    for view, scene in zip(views, scenes, strict=True):
        assert np.isfinite(view.depth).all()
        assert view.depth.min() > 0.3
        assert view.depth.max() < np.linalg.norm(scene.room_size)


def test_images_are_neither_dark_nor_overexposed(views: list[RenderedScene]) -> None:
    means = np.array([view.image.mean() for view in views])
    assert means.min() > 60
    assert means.max() < 200
    assert np.mean([(view.image == 255).mean() for view in views]) < 0.05


def test_heads_are_above_feet(views: list[RenderedScene]) -> None:
    rows = np.arange(SMALL[0])
    is_head_above = []
    for view in views:
        for number in np.unique(view.instance[view.parts > 0]).tolist():
            parts = np.where(view.instance == number, view.parts, 0)
            head, leg = ((parts == get_part_id(name)).any(1) for name in ("head", "lower leg"))
            if head.any() and leg.any():
                is_head_above.append(rows[head].mean() < rows[leg].mean())
    assert len(is_head_above) > 50
    assert np.mean(is_head_above) == 1


def test_all_objects_are_inside_the_room(scenes: list[Scene]) -> None:
    shell = [get_class_id(name) for name in ("wall", "floor", "ceiling")]
    for scene in scenes:
        objects = tuple(shape for shape in scene.primitives if shape.label not in shell)
        shapes = ShapeArrays.from_primitives(objects)
        half_size = np.einsum("pi,pij->pj", shapes.compute_half_extents(), np.abs(shapes.axes))
        low, high = shapes.center - half_size, shapes.center + half_size
        width, height, depth = scene.room_size
        tolerance = 0.12
        for axis, (start, end) in enumerate(
            ((-width / 2, width / 2), (-height, 0.0), (0.0, depth))
        ):
            is_outside = (low[:, axis] < start - tolerance) | (high[:, axis] > end + tolerance)
            assert not is_outside.any(), [
                CLASSES[objects[k].label] for k in np.flatnonzero(is_outside)
            ]


def test_every_object_has_one_class(scenes: list[Scene]) -> None:
    for scene in scenes:
        owners = {(shape.instance, shape.label) for shape in scene.primitives}
        assert len(owners) == len({instance for instance, _ in owners})


def test_edges_are_thin_and_separate_objects(views: list[RenderedScene]) -> None:
    for view in views:
        edges = find_object_edges(view)
        assert 0 < edges.mean() < 0.4
        below = view.instance[:-1] != view.instance[1:]
        assert edges[:-1][below].all()


def test_salient_object_is_one_movable_object(views: list[RenderedScene]) -> None:
    fixed = [
        get_class_id(name) for name in ("wall", "floor", "ceiling", "door", "window", "picture")
    ]
    labels = [(view, find_salient_object(view)) for view in views]
    assert np.mean([(label == IGNORE_INDEX).all() for _, label in labels]) < 0.1
    for view, label in labels:
        assert len(np.unique(view.instance[label == 1])) <= 1
        assert not np.isin(view.semseg[label == 1], fixed).any()


def test_image_without_objects_has_no_salient_object(views: list[RenderedScene]) -> None:
    wall = np.zeros(SMALL, np.uint8)
    empty = RenderedScene(views[0].image, views[0].depth, views[0].normals, wall, wall, wall)
    assert (find_salient_object(empty) == IGNORE_INDEX).all()


def test_free_area_rejects_overlapping_and_outside_rectangles() -> None:
    area = FreeArea((0, 0, 4, 3))
    area.occupy((1, 1, 2, 2))
    assert area.is_free((2, 1, 3, 2))
    assert not area.is_free((1.5, 1.5, 2.5, 2.5))
    assert not area.is_free((3.5, 0, 4.5, 1))
    assert is_overlapping((0, 0, 2, 2), (1, 1, 3, 3))


def test_objects_fit_against_every_wall() -> None:
    plan = FloorPlan((4.0, 2.5, 5.0))
    for wall in plan.walls:
        assert plan.floor.is_free(wall.compute_footprint(0.0, 1.0, 0.5))
        x, z = wall.to_world_xz(0.0, 0.5)
        assert -2 < x < 2
        assert 0 < z < 5

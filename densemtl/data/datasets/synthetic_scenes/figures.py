"""Human figures of capsules and ellipsoids, posed by joint angles of hips, knees and arms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from densemtl.data.datasets.synthetic_scenes.classes import get_part_id
from densemtl.data.datasets.synthetic_scenes.palette import (
    sample_fabric,
    sample_hair,
    sample_paint,
    sample_skin,
    sample_uniform,
)
from densemtl.data.datasets.synthetic_scenes.primitives import ObjectBuilder, Vector
from densemtl.data.datasets.synthetic_scenes.textures import Surface

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(
    get_part_id("head"), get_part_id("lower leg") + 1
)

SIDES = (-1, 1)

_ANKLE_ANGLE = 1.5
"""Angle between shank and foot in radians."""


@dataclass(frozen=True)
class Pose:
    """Joint angles in radians, as pairs for (left, right).

    Attributes:
        hip: forward angle of the thigh from straight down.
        knee: backward angle of the shank from the thigh.
        shoulder: forward angle of the upper arm from straight down.
        elbow: forward angle of the forearm from the upper arm.
        spread: sideways angle of the upper arm.
        lean: forward angle of the trunk.
    """

    hip: tuple[float, float]
    knee: tuple[float, float]
    shoulder: tuple[float, float]
    elbow: tuple[float, float]
    spread: tuple[float, float]
    lean: float


@dataclass(frozen=True)
class Clothes:
    """Surfaces of a figure.

    Attributes:
        skin: surface of head and hands.
        hair: surface of the hair.
        shirt: surface of trunk and upper arms.
        sleeve: surface of the forearms: the shirt, or the skin for short sleeves.
        trousers: surface of the legs.
        shoes: surface of the feet.
    """

    skin: Surface
    hair: Surface
    shirt: Surface
    sleeve: Surface
    trousers: Surface
    shoes: Surface


def sample_standing_pose(rng: np.random.Generator) -> Pose:
    """Sample an upright pose with both arms at rest or one arm raised.

    Args:
        rng: source of random numbers.

    Returns:
        The pose.
    """
    arms = [sample_uniform(rng, -0.2, 0.35), sample_uniform(rng, -0.2, 0.35)]
    elbows = [sample_uniform(rng, 0.05, 0.7), sample_uniform(rng, 0.05, 0.7)]
    if rng.random() < 0.4:
        side = int(rng.integers(2))
        arms[side], elbows[side] = sample_uniform(rng, 0.8, 2.6), sample_uniform(rng, 0.1, 1.2)
    hips = (sample_uniform(rng, -0.08, 0.12), sample_uniform(rng, -0.08, 0.12))
    knees = (sample_uniform(rng, 0, 0.12), sample_uniform(rng, 0, 0.12))
    spread = (sample_uniform(rng, 0.08, 0.5), sample_uniform(rng, 0.08, 0.5))
    return Pose(
        hips,
        knees,
        (arms[0], arms[1]),
        (elbows[0], elbows[1]),
        spread,
        sample_uniform(rng, 0, 0.08),
    )


def sample_walking_pose(rng: np.random.Generator) -> Pose:
    """Sample a pose in mid-step, in which each arm swings with the leg of the other side.

    Args:
        rng: source of random numbers.

    Returns:
        The pose.
    """
    stride = sample_uniform(rng, 0.3, 0.6) * (1 if rng.random() < 0.5 else -1)
    knee = (
        (0.1, sample_uniform(rng, 0.4, 0.8)) if stride > 0 else (sample_uniform(rng, 0.4, 0.8), 0.1)
    )
    swing = -stride * sample_uniform(rng, 0.7, 1.1)
    elbow = (sample_uniform(rng, 0.2, 1.2), sample_uniform(rng, 0.2, 1.2))
    return Pose((stride, -stride), knee, (swing, -swing), elbow, (0.12, 0.12), 0.08)


def sample_sitting_pose(rng: np.random.Generator) -> Pose:
    """Sample a sitting pose, with the hands in the lap or gesturing.

    Args:
        rng: source of random numbers.

    Returns:
        The pose.
    """
    hip = (sample_uniform(rng, 1.4, 1.6), sample_uniform(rng, 1.4, 1.6))
    knee = (hip[0] + sample_uniform(rng, -0.25, 0.15), hip[1] + sample_uniform(rng, -0.25, 0.15))
    shoulder = (sample_uniform(rng, 0.2, 0.8), sample_uniform(rng, 0.2, 0.8))
    elbow = (sample_uniform(rng, 0.6, 1.4), sample_uniform(rng, 0.6, 1.4))
    spread = (sample_uniform(rng, 0.1, 0.3), sample_uniform(rng, 0.1, 0.3))
    return Pose(hip, knee, shoulder, elbow, spread, sample_uniform(rng, -0.1, 0.12))


def sample_clothes(rng: np.random.Generator) -> Clothes:
    """Sample clothes, skin and hair, with long or short sleeves.

    Args:
        rng: source of random numbers.

    Returns:
        The surfaces.
    """
    skin, shirt = sample_skin(rng), sample_fabric(rng)
    sleeve = shirt if rng.random() < 0.5 else skin
    return Clothes(
        skin,
        sample_hair(rng),
        shirt,
        sleeve,
        sample_paint(rng, (0.2, 0.6)),
        sample_paint(rng, (0.1, 0.5)),
    )


def build_figure(
    builder: ObjectBuilder,
    height: float,
    pose: Pose,
    clothes: Clothes,
    seat_height: float | None = None,
) -> None:
    """Add a person to an object.

    The proportions are those of Drillis and Contini, 1966. A person stands with the lower foot on
    the floor, or sits with the pelvis at the origin of the object.

    Args:
        builder: object to which the shapes are added.
        height: body height in meters.
        pose: joint angles.
        clothes: surfaces.
        seat_height: height of the seat in meters; None for a standing person.
    """
    hip = (
        seat_height + 0.045 * height
        if seat_height is not None
        else _compute_hip_height(height, pose)
    )
    _build_trunk(builder, height, hip, pose.lean, clothes)
    for number, side in enumerate(SIDES):
        thigh, shank = pose.hip[number], pose.hip[number] - pose.knee[number]
        _build_leg(
            builder, height, hip, side, (_raise_thigh(thigh, shank, hip / height), shank), clothes
        )
        angles = (pose.shoulder[number], pose.elbow[number], pose.spread[number])
        top = _tilt_with_trunk((side * 0.112 * height, 0.29 * height, 0), hip, pose.lean)
        _build_arm(builder, height, top, side, angles, clothes)


def _compute_hip_height(height: float, pose: Pose) -> float:
    """Return the height of the hips at which the sole of the lower foot touches the floor."""
    legs = zip(pose.hip, pose.knee, strict=True)
    return height * max(
        0.245 * math.cos(hip) + _compute_knee_height(hip - knee) for hip, knee in legs
    )


def _compute_knee_height(shank: float) -> float:
    """Return the height of the knee above the sole, in body heights."""
    toes = max(0.09 * math.cos(shank + _ANKLE_ANGLE), 0)
    return 0.235 * math.cos(shank) + toes + 0.025


def _raise_thigh(thigh: float, shank: float, hip: float) -> float:
    """Return the angle of the thigh, increased if necessary to keep the foot above the floor."""
    highest = (hip - _compute_knee_height(shank)) / 0.245
    return max(thigh, math.acos(min(max(highest, -1), 1)))


def _tilt_with_trunk(point: Vector, hip: float, lean: float) -> Vector:
    """Return the position of a point above the hips when the trunk leans forward."""
    x, up, back = point
    cos, sin = math.cos(lean), math.sin(lean)
    return (x, hip + up * cos + back * sin, back * cos - up * sin)


def _build_trunk(
    builder: ObjectBuilder, height: float, hip: float, lean: float, clothes: Clothes
) -> None:
    def at(x: float, up: float, back: float) -> Vector:
        return _tilt_with_trunk((x * height, up * height, back * height), hip, lean)

    builder.add_capsule(
        at(0, 0.02, 0), at(0, 0.1, 0), 0.085 * height, clothes.shirt, part=TORSO, depth_ratio=0.7
    )
    builder.add_capsule(
        at(0, 0.1, 0), at(0, 0.22, 0), 0.095 * height, clothes.shirt, part=TORSO, depth_ratio=0.65
    )
    builder.add_capsule(
        at(-0.07, 0.28, 0), at(0.07, 0.28, 0), 0.05 * height, clothes.shirt, part=TORSO
    )
    builder.add_capsule(at(0, 0.28, 0), at(0, 0.36, 0), 0.032 * height, clothes.skin, part=TORSO)
    head = (0.1 * height, 0.14 * height, 0.12 * height)
    builder.add_ellipsoid(at(0, 0.405, -0.01), head, clothes.skin, HEAD)
    crown = (0.11 * height, 0.12 * height, 0.12 * height)
    builder.add_ellipsoid(at(0, 0.428, 0.012), crown, clothes.hair, HEAD)
    builder.add_ellipsoid(at(0, 0.395, -0.07), (0.02 * height,) * 3, clothes.skin, HEAD)


def _build_leg(
    builder: ObjectBuilder,
    height: float,
    hip: float,
    side: int,
    angles: tuple[float, float],
    clothes: Clothes,
) -> None:
    thigh, shank = angles
    top = (side * 0.05 * height, hip, 0.0)
    knee = _compute_bone_end(top, thigh, 0.245 * height)
    ankle = _compute_bone_end(knee, shank, 0.235 * height)
    toes = _compute_bone_end(ankle, shank + _ANKLE_ANGLE, 0.09 * height)
    builder.add_capsule(top, knee, 0.046 * height, clothes.trousers, part=UPPER_LEG)
    builder.add_capsule(knee, ankle, 0.034 * height, clothes.trousers, part=LOWER_LEG)
    builder.add_capsule(ankle, toes, 0.025 * height, clothes.shoes, part=LOWER_LEG)


def _build_arm(
    builder: ObjectBuilder,
    height: float,
    top: Vector,
    side: int,
    angles: tuple[float, float, float],
    clothes: Clothes,
) -> None:
    shoulder, bend, spread = angles
    out = side * math.sin(spread)
    elbow = _compute_bone_end(top, shoulder, 0.17 * height, out)
    wrist = _compute_bone_end(elbow, shoulder + bend, 0.15 * height, out * 0.4)
    hand = _compute_bone_end(wrist, shoulder + bend, 0.035 * height)
    builder.add_capsule(top, elbow, 0.031 * height, clothes.shirt, part=UPPER_ARM)
    builder.add_capsule(elbow, wrist, 0.024 * height, clothes.sleeve, part=LOWER_ARM)
    builder.add_ellipsoid(
        hand, (0.045 * height, 0.07 * height, 0.045 * height), clothes.skin, LOWER_ARM
    )


def _compute_bone_end(start: Vector, swing: float, length: float, sideways: float = 0.0) -> Vector:
    """Return the end of a bone with a forward angle `swing` and a sideways sine `sideways`."""
    x, up, back = start
    along = length * math.sqrt(1 - sideways**2)
    return (x + length * sideways, up - along * math.cos(swing), back - along * math.sin(swing))

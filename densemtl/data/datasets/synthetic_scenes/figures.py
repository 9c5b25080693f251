"""Jointed human figures: limbs as capsules, posed by angles at hips, knees, shoulders, elbows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from densemtl.data.datasets.synthetic_scenes.classes import part_id
from densemtl.data.datasets.synthetic_scenes.palette import fabric, hair, paint, pick, skin
from densemtl.data.datasets.synthetic_scenes.primitives import Assembly, Vector
from densemtl.data.datasets.synthetic_scenes.textures import Surface

HEAD, TORSO, UPPER_ARM, LOWER_ARM, UPPER_LEG, LOWER_LEG = range(
    part_id("head"), part_id("lower leg") + 1
)

SIDES = (-1, 1)

_INSTEP = 1.5
"""Angle between shank and foot."""


@dataclass(frozen=True)
class Posture:
    """Joint angles in radians, pairs for (left, right).

    Attributes:
        hip: thigh forwards of straight down.
        knee: shank backwards of the thigh.
        shoulder: upper arm forwards of straight down.
        elbow: forearm forwards of the upper arm.
        spread: upper arm sideways.
        lean: trunk forwards.
    """

    hip: tuple[float, float]
    knee: tuple[float, float]
    shoulder: tuple[float, float]
    elbow: tuple[float, float]
    spread: tuple[float, float]
    lean: float


@dataclass(frozen=True)
class Clothes:
    """Surfaces of a figure; the sleeve covers the forearm, or is skin."""

    skin: Surface
    hair: Surface
    shirt: Surface
    sleeve: Surface
    trousers: Surface
    shoes: Surface


def standing(rng: np.random.Generator) -> Posture:
    """Upright, with arms at rest or one raised."""
    arms = [pick(rng, -0.2, 0.35), pick(rng, -0.2, 0.35)]
    elbows = [pick(rng, 0.05, 0.7), pick(rng, 0.05, 0.7)]
    if rng.random() < 0.4:
        side = int(rng.integers(2))
        arms[side], elbows[side] = pick(rng, 0.8, 2.6), pick(rng, 0.1, 1.2)
    hips = (pick(rng, -0.08, 0.12), pick(rng, -0.08, 0.12))
    knees = (pick(rng, 0, 0.12), pick(rng, 0, 0.12))
    spread = (pick(rng, 0.08, 0.5), pick(rng, 0.08, 0.5))
    return Posture(
        hips, knees, (arms[0], arms[1]), (elbows[0], elbows[1]), spread, pick(rng, 0, 0.08)
    )


def walking(rng: np.random.Generator) -> Posture:
    """In mid-step; each arm swings with the other side's leg."""
    stride = pick(rng, 0.3, 0.6) * (1 if rng.random() < 0.5 else -1)
    knee = (0.1, pick(rng, 0.4, 0.8)) if stride > 0 else (pick(rng, 0.4, 0.8), 0.1)
    swing = -stride * pick(rng, 0.7, 1.1)
    elbow = (pick(rng, 0.2, 1.2), pick(rng, 0.2, 1.2))
    return Posture((stride, -stride), knee, (swing, -swing), elbow, (0.12, 0.12), 0.08)


def sitting(rng: np.random.Generator) -> Posture:
    """On a seat, hands in the lap or in talk."""
    hip = (pick(rng, 1.4, 1.6), pick(rng, 1.4, 1.6))
    knee = (hip[0] + pick(rng, -0.25, 0.15), hip[1] + pick(rng, -0.25, 0.15))
    shoulder = (pick(rng, 0.2, 0.8), pick(rng, 0.2, 0.8))
    elbow = (pick(rng, 0.6, 1.4), pick(rng, 0.6, 1.4))
    spread = (pick(rng, 0.1, 0.3), pick(rng, 0.1, 0.3))
    return Posture(hip, knee, shoulder, elbow, spread, pick(rng, -0.1, 0.12))


def dress(rng: np.random.Generator) -> Clothes:
    """Random clothes, with long or short sleeves."""
    body, shirt = skin(rng), fabric(rng)
    sleeve = shirt if rng.random() < 0.5 else body
    return Clothes(body, hair(rng), shirt, sleeve, paint(rng, (0.2, 0.6)), paint(rng, (0.1, 0.5)))


def figure(
    it: Assembly, height: float, posture: Posture, clothes: Clothes, seat: float | None = None
) -> None:
    """Add a person of a body height in metres.

    A person stands with the lower foot on the floor, or sits with the pelvis at the assembly's
    origin on a seat of the given height. Proportions: Drillis and Contini 1966.
    """
    hip = seat + 0.045 * height if seat is not None else _hip_height(height, posture)
    _trunk(it, height, hip, posture.lean, clothes)
    for number, side in enumerate(SIDES):
        thigh, shank = posture.hip[number], posture.hip[number] - posture.knee[number]
        _leg(it, height, hip, side, (_lifted(thigh, shank, hip / height), shank), clothes)
        angles = (posture.shoulder[number], posture.elbow[number], posture.spread[number])
        top = _lean((side * 0.112 * height, 0.29 * height, 0), hip, posture.lean)
        _arm(it, height, top, side, angles, clothes)


def _hip_height(height: float, posture: Posture) -> float:
    """Height of the hips at which the lower foot's sole touches the floor."""
    legs = zip(posture.hip, posture.knee, strict=True)
    return height * max(0.245 * math.cos(hip) + _below_knee(hip - knee) for hip, knee in legs)


def _below_knee(shank: float) -> float:
    """How far the sole reaches below the knee, in body heights."""
    toes = max(0.09 * math.cos(shank + _INSTEP), 0)
    return 0.235 * math.cos(shank) + toes + 0.025


def _lifted(thigh: float, shank: float, hip: float) -> float:
    """The thigh's angle, raised if need be so that the foot stays above the floor."""
    highest = (hip - _below_knee(shank)) / 0.245
    return max(thigh, math.acos(min(max(highest, -1), 1)))


def _lean(point: Vector, hip: float, lean: float) -> Vector:
    """A point above the hips, tilted forwards with the trunk."""
    x, up, back = point
    cos, sin = math.cos(lean), math.sin(lean)
    return (x, hip + up * cos + back * sin, back * cos - up * sin)


def _trunk(it: Assembly, height: float, hip: float, lean: float, clothes: Clothes) -> None:
    def at(x: float, up: float, back: float) -> Vector:
        return _lean((x * height, up * height, back * height), hip, lean)

    it.limb(at(0, 0.02, 0), at(0, 0.1, 0), 0.085 * height, clothes.shirt, part=TORSO, flat=0.7)
    it.limb(at(0, 0.1, 0), at(0, 0.22, 0), 0.095 * height, clothes.shirt, part=TORSO, flat=0.65)
    it.limb(at(-0.07, 0.28, 0), at(0.07, 0.28, 0), 0.05 * height, clothes.shirt, part=TORSO)
    it.limb(at(0, 0.28, 0), at(0, 0.36, 0), 0.032 * height, clothes.skin, part=TORSO)
    head = (0.1 * height, 0.14 * height, 0.12 * height)
    it.ellipsoid(at(0, 0.405, -0.01), head, clothes.skin, HEAD)
    crown = (0.11 * height, 0.12 * height, 0.12 * height)
    it.ellipsoid(at(0, 0.428, 0.012), crown, clothes.hair, HEAD)
    it.ellipsoid(at(0, 0.395, -0.07), (0.02 * height,) * 3, clothes.skin, HEAD)


def _leg(
    it: Assembly,
    height: float,
    hip: float,
    side: int,
    angles: tuple[float, float],
    clothes: Clothes,
) -> None:
    thigh, shank = angles
    top = (side * 0.05 * height, hip, 0.0)
    knee = _step(top, thigh, 0.245 * height)
    ankle = _step(knee, shank, 0.235 * height)
    toes = _step(ankle, shank + _INSTEP, 0.09 * height)
    it.limb(top, knee, 0.046 * height, clothes.trousers, part=UPPER_LEG)
    it.limb(knee, ankle, 0.034 * height, clothes.trousers, part=LOWER_LEG)
    it.limb(ankle, toes, 0.025 * height, clothes.shoes, part=LOWER_LEG)


def _arm(
    it: Assembly,
    height: float,
    top: Vector,
    side: int,
    angles: tuple[float, float, float],
    clothes: Clothes,
) -> None:
    shoulder, bend, spread = angles
    out = side * math.sin(spread)
    elbow = _step(top, shoulder, 0.17 * height, out)
    wrist = _step(elbow, shoulder + bend, 0.15 * height, out * 0.4)
    hand = _step(wrist, shoulder + bend, 0.035 * height)
    it.limb(top, elbow, 0.031 * height, clothes.shirt, part=UPPER_ARM)
    it.limb(elbow, wrist, 0.024 * height, clothes.sleeve, part=LOWER_ARM)
    it.ellipsoid(hand, (0.045 * height, 0.07 * height, 0.045 * height), clothes.skin, LOWER_ARM)


def _step(start: Vector, swing: float, length: float, out: float = 0.0) -> Vector:
    """End of a bone that swings forwards by an angle and leans sideways by a sine."""
    x, up, back = start
    along = length * math.sqrt(1 - out**2)
    return (x + length * out, up - along * math.cos(swing), back - along * math.sin(swing))

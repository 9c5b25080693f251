"""Configuration of the distillation of features from frozen pretrained networks."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from densemtl.config.constraints import (
    ImageSide,
    NonNegativeFloat,
    SmallNonNegativeInt,
    UserPath,
)
from densemtl.config.sections import Section


class FeatureTeacherConfig(Section):
    """Frozen timm model whose features the backbone learns to predict."""

    name: str
    """Name of a timm model, with or without a tag, such as `vit_base_patch14_dinov2.lvd142m`."""
    pretrained: bool = True
    """Whether to load timm's pretrained weights, unless `weights` is given."""
    weights: UserPath | None = None
    """File of pretrained weights, as for the backbone."""
    size: tuple[ImageSide, ImageSide] | None = None
    """Height and width in pixels to which images are resized for this teacher, rounded to the
    patches or strides of the model; null for the input size, with the same number of patches as of
    16 pixels for patches of 14 pixels."""
    weight: NonNegativeFloat = 1.0
    """Factor of the loss of this teacher."""


def _wrap_name(value: Any) -> Any:
    """Convert the name of a model to the section of a teacher."""
    return {"name": value} if isinstance(value, str) else value


_FeatureTeacher = Annotated[
    FeatureTeacherConfig,
    BeforeValidator(_wrap_name, json_schema_input_type=str | FeatureTeacherConfig),
]


class DistillLossConfig(Section):
    """Weights of the two distances between projected features and those of a teacher."""

    cosine: NonNegativeFloat = 0.9
    """Weight of 1 minus the cosine similarity."""
    smooth_l1: NonNegativeFloat = 0.1
    """Weight of the smooth L1 distance, averaged over all elements."""


class DistillConfig(Section):
    """Loss term that makes the features of the backbone similar to those of frozen teachers."""

    teachers: Annotated[tuple[_FeatureTeacher, ...], Field(min_length=1, max_length=16)]
    """The teachers: names of timm models, or `{name: .., size: .., weight: ..}`."""
    taps: Annotated[tuple[SmallNonNegativeInt, ...], Field(min_length=1)] | None = None
    """Levels of the backbone to compare, 0 for the finest one; null for all. The last level is
    compared with the last one of the teacher, the one before with the one before, and so on."""
    loss: DistillLossConfig = DistillLossConfig()
    """Weights of both distances, such as `{cosine: 0.9, smooth_l1: 0.1}`."""
    per: Literal["token", "image"] = "token"
    """Vectors whose cosine similarity is computed: that of each position (`token`), or all features
    of an image in one vector (`image`), as in SAK."""
    weight: NonNegativeFloat = 1.0
    """Weight of the sum of the losses of all teachers and levels."""

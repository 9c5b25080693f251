"""Construction of the teachers of `distill`, and what they cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from densemtl.config.experiment import ExperimentConfig
from densemtl.data.image_format import get_image_format
from densemtl.engine.distillation import Distillation
from densemtl.engine.feature_teacher import FeatureTeacher
from densemtl.errors import ConfigError, ModelError
from densemtl.models.complexity import count_backbone_flops
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import Size

GIGA = 1e9


@dataclass(frozen=True)
class TeacherCost:
    """Cost of a frozen teacher, which only training pays.

    Attributes:
        size: (height, width) of the images of the teacher in pixels.
        parameters: number of its parameters.
        gmac: 10^9 multiply-adds of one image.
        gflop: GFLOP of one image, 2 FLOP per multiply-add.
        projections: number of trained parameters of the projections to its features.
    """

    size: Size
    parameters: int
    gmac: float
    gflop: float
    projections: int

    def __str__(self) -> str:
        height, width = self.size
        return (
            f"{height} x {width}, {self.parameters:,} frozen parameters, {self.gmac:,.2f} GMAC per"
            f" training image, {self.projections:,} parameters of projections"
        )


def compute_teacher_costs(distillation: Distillation | None) -> Mapping[str, TeacherCost]:
    """Compute the costs of the teachers of features.

    Args:
        distillation: the teachers; None for none.

    Returns:
        {name: cost}.
    """
    if distillation is None:
        return {}
    return {
        name: _compute_cost(teacher, projections)
        for name, teacher, projections in zip(
            *(distillation.names, distillation.teachers, distillation.projections), strict=True
        )
    }


def _compute_cost(teacher: FeatureTeacher, projections: nn.Module) -> TeacherCost:
    flop = count_backbone_flops(teacher.backbone, teacher.size)
    parameters, trained = (
        sum(weight.numel() for weight in module.parameters()) for module in (teacher, projections)
    )
    return TeacherCost(teacher.size, parameters, flop / 2 / GIGA, flop / GIGA, trained)


def build_distillation(
    experiment: ExperimentConfig, model: MultiTaskModel, *, load_weights: bool = True
) -> Distillation | None:
    """Build the teachers of an experiment and the projections to their features.

    Args:
        experiment: the experiment.
        model: its model.
        load_weights: whether to load the weights of the teachers.

    Returns:
        The loss term; None if the section `distill` is null.

    Raises:
        ConfigError: if the experiment has settings that distillation does not support.
        ModelError: if a teacher cannot be built.
    """
    config = experiment.distill
    if config is None:
        return None
    rgb = _check_settings(experiment)
    size = _pad(experiment.input.size, model.size_divisor)
    teachers = []
    for index, entry in enumerate(config.teachers):
        changes = {} if load_weights else {"pretrained": False, "weights": None}
        with _name_teacher(index):
            teachers.append(FeatureTeacher(entry.model_copy(update=changes), size, rgb))
    return Distillation(config, model, teachers)


def _check_settings(experiment: ExperimentConfig) -> tuple[int, int, int]:
    """Check settings that exclude distillation; return the indices of R, G and B in images."""
    if experiment.train.compile:
        raise ConfigError("train.compile: not supported with distill; set it to false")
    if experiment.loader.cache == "features":
        raise ConfigError(
            "loader.cache: features: not supported with distill, which trains the backbone; use"
            " another cache"
        )
    image_format = get_image_format(experiment.data)
    if image_format.rgb is None:
        raise ConfigError(
            "distill: teachers need the channels R, G and B of images; set data.rgb_channels"
        )
    return image_format.rgb


def _pad(size: Size, divisor: int) -> Size:
    height, width = (-(-side // divisor) * divisor for side in size)
    return height, width


@contextmanager
def _name_teacher(index: int) -> Iterator[None]:
    """Replace the section `backbone` in errors by that of the teacher."""
    section = f"distill.teachers.{index}"
    try:
        yield
    except ModelError as error:
        text = str(error).replace("backbone.", f"{section}.")
        raise ModelError(text if text.startswith(section) else f"{section}: {text}") from error

"""Distillation of the features of frozen pretrained networks into the backbone of a run."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.backbones.backbone import Backbone
from densemtl.config.distillation import DistillConfig
from densemtl.distributed.collectives import all_reduce_batch_mean
from densemtl.engine.feature_teacher import FeatureTeacher
from densemtl.errors import ConfigError
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.ops.resize import get_size, resize
from densemtl.runtime.execution import ExecutionConfig

DISTILL = "distill"
"""Prefix of the names of the losses in the log, and name of the group of trained parameters."""

RecordedMaps = Mapping[tuple[int, int], Sequence[Tensor]]
"""{(stream, level of the backbone): its maps (B, C, H, W)}, several if the level runs several
times. All maps of the backbone belong to stream 0."""


class Distillation(nn.Module):
    """Loss between projected features of a backbone and the features of frozen teachers.

    The loss is that of SAK (Lu et al., "Swiss Army Knife: Synergizing Biases in Knowledge from
    Vision Foundation Models for Multi-Task Learning", ICLR 2025), with 1x1 convolutions that map
    the channels of the student to those of the teacher. If a model has several backbones, or runs
    a level several times, the loss of the level is the mean over its maps. If the decoder has
    streams of features (`mixture`), each teacher is compared with its own stream instead.

    The projections are the only parameters. They are trained with the model and saved in
    checkpoints, but are not part of the model. Teachers are neither trained nor saved.

    Args:
        config: the section `distill` of the configuration.
        model: the model whose backbone is trained.
        teachers: one network per entry of `config.teachers`.

    Attributes:
        names: names of the teachers, which are unique.
        projections: for each teacher, one projection per level.

    Raises:
        ConfigError: if `taps` names a level that a network does not have, or the backbone is
            frozen, or if the number of teachers is not that of the streams.
    """

    def __init__(
        self, config: DistillConfig, model: MultiTaskModel, teachers: Sequence[FeatureTeacher]
    ) -> None:
        super().__init__()
        self._config, self._size_divisor = config, model.size_divisor
        # Tuples register no submodules: the networks have their own state.
        self._teachers = tuple(teachers)
        self._backbones = tuple(each for each in model.modules() if isinstance(each, Backbone))
        self._decoder = (model.decoder,)
        shared = (each for each in model.modules() if isinstance(each, SharedFeatures))
        self._shared_features = tuple(shared)[:1]
        num_streams = model.decoder.num_streams
        if num_streams not in (0, len(teachers)):
            raise ConfigError(
                f"distill.teachers: the decoder has {num_streams} streams, one per teacher; set"
                f" decoder.streams={len(teachers)}"
            )
        if not num_streams and not any(
            weight.requires_grad for net in self._backbones for weight in net.parameters()
        ):
            raise ConfigError(
                "distill: the backbone is frozen, so that it cannot learn from teachers: set"
                " backbone.freeze=none, or remove distill"
            )
        self.names = _make_names([teacher.name for teacher in config.teachers])
        channels = self._backbones[0].feature_info.channels
        self._taps = [_match_levels(config, len(channels), teacher) for teacher in teachers]
        self.projections = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(channels[student], teacher.feature_info.channels[level], 1)
                for student, level in taps.items()
            )
            for teacher, taps in zip(teachers, self._taps, strict=True)
        )

    @property
    def teachers(self) -> tuple[FeatureTeacher, ...]:
        """The frozen networks, in the order of `names`."""
        return self._teachers

    def to_device(self, execution: ExecutionConfig) -> Distillation:
        """Move projections and teachers to a device, and convert them to its memory layout.

        Args:
            execution: device and memory layout.

        Returns:
            The same object.
        """
        for module in (self, *self._teachers):
            execution.to_device(module)
        return self

    @contextmanager
    def recording(self) -> Iterator[RecordedMaps]:
        """Record the maps of the backbone in the forward pass that runs in this context.

        Yields:
            The maps, which are complete when the forward pass has ended. With gradient methods
            that compare gradients at the shared features, they are cut from the graph there.
        """
        maps: dict[tuple[int, int], list[Tensor]] = defaultdict(list)

        def record(stream: int, level: int, feature: Tensor) -> None:
            maps[stream, level].append(feature)

        with ExitStack() as stack:
            if self._decoder[0].num_streams:
                stack.enter_context(self._decoder[0].recording_streams(record))
            else:
                for backbone in self._backbones:
                    stack.enter_context(backbone.recording_maps(partial(record, 0)))
            yield maps
        for module in self._shared_features:
            for key, features in maps.items():
                maps[key] = module(features)

    def compute_losses(
        self, maps: RecordedMaps, image: Tensor, execution: ExecutionConfig
    ) -> dict[str, Tensor]:
        """Compute the loss of each teacher on the joint batch of all ranks.

        Args:
            maps: what `recording` yielded.
            image: the images of this rank (B, C, H, W) in 0..255.
            execution: device, autocast type and memory layout.

        Returns:
            {"distill/NAME": scalar}, already weighted.
        """
        losses = {}
        for index, name in enumerate(self.names):
            run = partial(self._teachers[index], size_divisor=self._size_divisor)
            targets = execution.forward(run, image)
            pairs = zip(self._taps[index].items(), self._iter_projections(index), strict=True)
            stream = index if self._decoder[0].num_streams else 0
            terms = [
                self._compare(project, _get_maps(maps, stream, student), targets[level], execution)
                for (student, level), project in pairs
            ]
            weight = self._config.weight * self._config.teachers[index].weight
            loss = weight * torch.stack(terms).sum()
            losses[f"{DISTILL}/{name}"] = all_reduce_batch_mean(loss)
        return losses

    def _iter_projections(self, index: int) -> Iterator[nn.Module]:
        projections = self.projections[index]
        assert isinstance(projections, nn.ModuleList)
        return iter(projections)

    def _compare(
        self,
        project: nn.Module,
        features: Sequence[Tensor],
        target: Tensor,
        execution: ExecutionConfig,
    ) -> Tensor:
        """Return the mean loss of the maps of a level."""
        with execution.autocast():
            projected = [project(feature) for feature in features]
        loss, per_image = self._config.loss, self._config.per == "image"
        losses = [
            compute_feature_loss(
                *(feature, target),
                cosine=loss.cosine,
                smooth_l1=loss.smooth_l1,
                per_image=per_image,
            )
            for feature in projected
        ]
        return torch.stack(losses).mean()


def _get_maps(maps: RecordedMaps, stream: int, level: int) -> Sequence[Tensor]:
    if not maps.get((stream, level)):
        raise ConfigError(
            f"distill.taps: the decoder does not compute level {level} of the backbone; list the"
            " other levels"
        )
    return maps[stream, level]


def compute_feature_loss(
    feature: Tensor, target: Tensor, *, cosine: float, smooth_l1: float, per_image: bool
) -> Tensor:
    """Compute the distance between two maps, of which the smaller one is enlarged first.

    Args:
        feature: map (B, C, H, W) of the student, with as many channels as that of the teacher.
        target: map (B, C, H', W') of the teacher.
        cosine: weight of 1 minus the cosine similarity.
        smooth_l1: weight of the smooth L1 distance.
        per_image: compute the cosine similarity of all features of an image in one vector, instead
            of the mean over that of each position.

    Returns:
        A scalar in single precision.

    Example:
        >>> target = torch.ones(1, 2, 3, 3)
        >>> loss = compute_feature_loss(
        ...     3 * target, target, cosine=0.9, smooth_l1=0.1, per_image=False
        ... )
        >>> round(float(loss), 3)  # 0.1 * (|3 - 1| - 0.5)
        0.15
    """
    sizes = zip(get_size(feature), get_size(target), strict=True)
    height, width = (max(sides) for sides in sizes)
    first, second = (resize(each.float(), (height, width)) for each in (feature, target))
    vectors = (first.flatten(1), second.flatten(1)) if per_image else (first, second)
    similarity = F.cosine_similarity(*vectors, dim=1).mean()
    return cosine * (1 - similarity) + smooth_l1 * F.smooth_l1_loss(first, second)


def _make_names(models: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the models, with numbers where a name occurs again."""
    seen: Counter[str] = Counter()
    names = []
    for name in models:
        seen[name] += 1
        names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(names)


def _match_levels(config: DistillConfig, count: int, teacher: FeatureTeacher) -> dict[int, int]:
    """Return {level of the student: level of the teacher}, matched from the last level."""
    offset = len(teacher.feature_info) - count
    available = range(max(0, -offset), count)
    taps = available if config.taps is None else sorted(set(config.taps))
    for tap in taps:
        if tap not in available:
            levels = ", ".join(map(str, available))
            raise ConfigError(
                f"distill.taps: the backbone and {teacher.backbone.name!r} have no common level"
                f" {tap}; choose from {levels}"
            )
    return {tap: tap + offset for tap in taps}

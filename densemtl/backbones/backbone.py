"""Any timm model as a pyramid of feature maps, as a whole or stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.errors import ModelError
from densemtl.config.constraints import Side
from densemtl.backbones.stage_discovery import find_stages
from densemtl.backbones.timm_factory import brief, find_recipe
from densemtl.backbones.staged_forward import Midway, Stages
from densemtl.types import FeatureSpec

TRIAL_CELLS = (2, 3)
"""Height and width of the coarsest level on the image that a model is tried on."""


class Backbone(nn.Module):
    """A timm model by name.

    The pyramid holds every level of stride 4 or more (a stem at stride 2 is left out); models
    whose levels all have one stride, as ViTs, give the outputs of their blocks L/4, L/2, 3L/4
    and L. HRNet gives its branches at their published widths, without classification modules.

    Args:
        name: a timm model, with or without a tag: `resnet50`, `vit_small_patch16_dinov3.lvd1689m`.
        pretrained: start from timm's weights.
        output_stride: of the coarsest level; below 32 strides are replaced by dilation.
        img_size: (height, width) of the input, for models that are built for one size; rounded
            up to `multiple`. Models that take any size need none.

    Attributes:
        spec: channels and strides of what `forward` gives.
        multiple: heights and widths of the input must be divisible by it.
        mean: of the three RGB channels in 0..1, as the pretrained weights want them normalised.
        std: likewise.

    Raises:
        ModelError: no such model, not usable as a pyramid, an output stride that it does not
            have, or pretrained weights that cannot be had.
    """

    spec: FeatureSpec
    multiple: int

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        output_stride: Literal[8, 16, 32] = 32,
        img_size: tuple[Side, Side] | None = None,
    ) -> None:
        super().__init__()
        recipe = find_recipe(name, output_stride, img_size)
        self.name = name
        self.net = recipe.build(pretrained)
        info = self.net.feature_info
        self.spec = FeatureSpec(tuple(info.channels()), tuple(info.reduction()))
        self.multiple = max(int(level["reduction"]) for level in info.info)
        self.mean, self.std = recipe.statistics()
        self._only_size = recipe.only_size()
        self._nhwc = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        self._levels: list[str] = info.module_name()
        self._stages: Stages | None = None

    def forward(self, image: Tensor) -> list[Tensor]:
        """Bx3xHxW normalised image, H and W divisible by `multiple` -> NCHW maps, finest first.

        Raises:
            ModelError: an image of another size than the model is built for.
        """
        self._check_size(image)
        return [self._to_nchw(feature) for feature in self.net(image)]

    def check_stages(self) -> None:
        """Find out, once, how it is run stage by stage, and that this gives the same as `forward`.

        An architecture that runs stages calls it when it is built; else the first run does.

        Raises:
            ModelError: it cannot be run stage by stage.
        """
        if self._stages is not None:
            return
        with self.trial() as image:
            try:
                maps = self(image)
                self._stages = find_stages(self.net, self._levels, self.spec, image, maps)
            except ModelError as error:
                raise self._uncut(str(error)) from None
            except Exception as error:  # of models that take no small image, whatever they like
                raise self._uncut(f"on a small image {brief(error)}") from error

    def run_stem(self, image: Tensor) -> Midway:
        """Bx3xHxW normalised image -> what stage 0 starts from.

        Raises:
            ModelError: a model that cannot be run stage by stage, or an image of a wrong size.
        """
        self._check_size(image)
        return self._cut().start(self.net, image)

    def run_stage(self, index: int, midway: Midway) -> Midway:
        """One stage alone, so that networks can exchange features between stages.

        `run_stem` and then all stages in turn give the same maps as `forward`.

        Args:
            index: 0 .. len(spec) - 1.
            midway: what the stage before gave, or the stem for stage 0.

        Raises:
            ModelError: a model that cannot be run stage by stage.
        """
        return self._cut().run(self.net, index, midway)

    def run_stage_watched(self, index: int, midway: Midway) -> tuple[Tensor, Midway]:
        """As `run_stage`, and what enters the stage's last block besides.

        Returns:
            (input of the last block as BxCxHxW, what the stage gives).

        Raises:
            ModelError: a model that cannot be run stage by stage, or whose blocks see no maps.
        """
        try:
            return self._cut().run_watched(self.net, index, midway)
        except ModelError as error:
            raise ModelError(f"backbone {self.name!r}, stage {index}: {error}") from None

    def stage_modules(self, index: int) -> list[nn.Module]:
        """The modules that `run_stage(index)` runs, one after the other.

        Raises:
            ModelError: a model that cannot be run stage by stage.
        """
        return self._cut().modules(self.net, index)

    @contextmanager
    def trial(self) -> Iterator[Tensor]:
        """Try the model out without a trace, on the small image of noise, 1x3xHxW, that this gives.

        The size is the one that the model takes, or small and not square.
        """
        height, width = self._only_size or [self.multiple * cells for cells in TRIAL_CELLS]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, 3, height, width, generator=generator, device="cpu")
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield noise.to(next(self.parameters()).device)
        finally:
            self.train(training)

    def _cut(self) -> Stages:
        self.check_stages()
        assert self._stages is not None
        return self._stages

    def _uncut(self, reason: str) -> ModelError:
        return ModelError(
            f"backbone {self.name!r} cannot be run stage by stage: {reason}; choose e.g. a ResNet,"
            " ConvNeXt, EfficientNet, Swin or ViT"
        )

    def _to_nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self._nhwc else feature

    def _check_size(self, image: Tensor) -> None:
        size = image.shape[-2], image.shape[-1]
        if self._only_size is not None and size != self._only_size:
            raise ModelError(
                f"backbone {self.name!r} is built for inputs of {self._only_size}, not {size}:"
                f" set backbone.img_size to {list(size)}"
            )

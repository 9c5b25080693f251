"""Any timm model as a pyramid of feature maps, as a whole or stage by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from densemtl.backbones.stage_discovery import find_stages
from densemtl.backbones.staged_forward import StagePlan, StageState
from densemtl.backbones.timm_factory import get_model_spec
from densemtl.config.constraints import ImageSide
from densemtl.errors import ModelError, shorten_error
from densemtl.types import FeatureInfo

DRY_RUN_FEATURE_SIZE = (2, 3)
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
            up to `size_divisor`. Models that take any size need none.

    Attributes:
        feature_info: channels and strides of what `forward` gives.
        size_divisor: heights and widths of the input must be divisible by it.
        mean: of the three RGB channels in 0..1, as the pretrained weights want them normalised.
        std: likewise.

    Raises:
        ModelError: no such model, not usable as a pyramid, an output stride that it does not
            have, or pretrained weights that cannot be had.
    """

    feature_info: FeatureInfo
    size_divisor: int

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        output_stride: Literal[8, 16, 32] = 32,
        img_size: tuple[ImageSide, ImageSide] | None = None,
    ) -> None:
        super().__init__()
        recipe = get_model_spec(name, output_stride, img_size)
        self.name = name
        self.net = recipe.build(pretrained)
        info = self.net.feature_info
        self.feature_info = FeatureInfo(tuple(info.channels()), tuple(info.reduction()))
        self.size_divisor = max(int(level["reduction"]) for level in info.info)
        self.mean, self.std = recipe.get_mean_std()
        self._fixed_input_size = recipe.get_fixed_input_size()
        self._is_nhwc = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        self._level_names: list[str] = info.module_name()
        self._stage_plan: StagePlan | None = None

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
        if self._stage_plan is not None:
            return
        with self.dry_run() as image:
            try:
                maps = self(image)
                self._stage_plan = find_stages(
                    self.net, self._level_names, self.feature_info, image, maps
                )
            except ModelError as error:
                raise self._make_stages_error(str(error)) from None
            except Exception as error:  # of models that take no small image, whatever they like
                raise self._make_stages_error(f"on a small image {shorten_error(error)}") from error

    def run_stem(self, image: Tensor) -> StageState:
        """Bx3xHxW normalised image -> what stage 0 starts from.

        Raises:
            ModelError: a model that cannot be run stage by stage, or an image of a wrong size.
        """
        self._check_size(image)
        return self._get_stage_plan().run_stem(self.net, image)

    def run_stage(self, index: int, state: StageState) -> StageState:
        """One stage alone, so that networks can exchange features between stages.

        `run_stem` and then all stages in turn give the same maps as `forward`.

        Args:
            index: 0 .. len(spec) - 1.
            state: what the stage before gave, or the stem for stage 0.

        Raises:
            ModelError: a model that cannot be run stage by stage.
        """
        return self._get_stage_plan().run_stage(self.net, index, state)

    def run_stage_with_last_input(self, index: int, state: StageState) -> tuple[Tensor, StageState]:
        """As `run_stage`, and what enters the stage's last block besides.

        Returns:
            (input of the last block as BxCxHxW, what the stage gives).

        Raises:
            ModelError: a model that cannot be run stage by stage, or whose blocks see no maps.
        """
        try:
            return self._get_stage_plan().run_stage_with_last_input(self.net, index, state)
        except ModelError as error:
            raise ModelError(f"backbone {self.name!r}, stage {index}: {error}") from None

    def get_stage_modules(self, index: int) -> list[nn.Module]:
        """The modules that `run_stage(index)` runs, one after the other.

        Raises:
            ModelError: a model that cannot be run stage by stage.
        """
        return self._get_stage_plan().get_modules(self.net, index)

    @contextmanager
    def dry_run(self) -> Iterator[Tensor]:
        """Try the model out without a trace, on the small image of noise, 1x3xHxW, that this gives.

        The size is the one that the model takes, or small and not square.
        """
        height, width = self._fixed_input_size or [
            self.size_divisor * cells for cells in DRY_RUN_FEATURE_SIZE
        ]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, 3, height, width, generator=generator, device="cpu")
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                parameter = next(self.parameters())
                yield noise.to(parameter.device, parameter.dtype)
        finally:
            self.train(training)

    def _get_stage_plan(self) -> StagePlan:
        self.check_stages()
        assert self._stage_plan is not None
        return self._stage_plan

    def _make_stages_error(self, reason: str) -> ModelError:
        return ModelError(
            f"backbone {self.name!r} cannot be run stage by stage: {reason}; choose e.g. a ResNet,"
            " ConvNeXt, EfficientNet, Swin or ViT"
        )

    def _to_nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self._is_nhwc else feature

    def _check_size(self, image: Tensor) -> None:
        size = image.shape[-2], image.shape[-1]
        if self._fixed_input_size is not None and size != self._fixed_input_size:
            raise ModelError(
                f"backbone {self.name!r} is built for inputs of {self._fixed_input_size}, not "
                f"{size}: set backbone.img_size to {list(size)}"
            )

"""Backbone that returns the feature pyramid of any timm model, as a whole or stage by stage."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densemtl.adapters.insertion import insert_adapters
from densemtl.adapters.options import AdapterOptions
from densemtl.backbones.freezing import Freeze, freeze_except, freeze_parameters
from densemtl.backbones.normalization import ChannelMeans, ChannelStds, check_normalization
from densemtl.backbones.parameter_info import ParameterInfo, describe_parameters
from densemtl.backbones.pruning import keep_modules
from densemtl.backbones.staged_network import StagedNetwork
from densemtl.backbones.timm_factory import NUM_RGB_CHANNELS, get_model_spec
from densemtl.backbones.weight_files import WeightsMatch
from densemtl.config.constraints import (
    ImageSide,
    NonNegativeFloat,
    NonNegativeInt,
    NumChannels,
    OpenUnitInterval,
    UserPath,
)
from densemtl.distributed.collectives import is_main_process
from densemtl.errors import ModelError
from densemtl.types import FeatureInfo, Size

DRY_RUN_FEATURE_SIZE = (2, 3)
"""Height and width of the coarsest feature map during a dry run."""


class Backbone(StagedNetwork):
    """Timm model that returns a feature pyramid.

    The pyramid contains every level of stride 4 or more; a stem at stride 2 is left out. Models
    whose levels all have the same stride, such as ViTs, return the outputs of their blocks L/4,
    L/2, 3L/4 and L of L blocks. HRNet returns its branches at their published widths, without
    classification modules.

    Args:
        name: name of a timm model, with or without a tag: `resnet50`,
            `vit_small_patch16_dinov3.lvd1689m`; also as on the hub, `timm/resnet50`.
        pretrained: whether to load timm's pretrained weights, unless `weights` is given.
        weights: file of pretrained weights: .safetensors, or a file of torch that contains a state
            dict, also below a key such as `state_dict`. Prefixes such as `module.` are removed, and
            the classifier is ignored.
        weights_match: how tensors of the file are assigned: by `name`, or in the `order` of the
            file if it has other names, but the same shapes in the same order.
        options: options of timm's model, such as `{drop_path_rate: 0.15}`.
        output_stride: stride of the coarsest level; below 32, strides are replaced by dilation.
        img_size: (height, width) of the input in pixels, for models that are built for one size;
            rounded up to a multiple of `size_divisor`. Models that accept any size do not need it.
        batch_norm_momentum: share of a batch in the update of the running statistics of batch
            normalization; None keeps timm's value. The survey trains HRNet with 0.01, timm has 0.1.
        freeze: part that is not trained: "none", "all", "stem" (the layers before the first stage),
            "norm" (all normalization layers), or a number of stages, which includes the stem. Batch
            statistics of frozen layers do not change, and their dropout is off.
        adapters: adapters of layers, such as `{kind: lora, rank: 16}`; all other parameters are
            frozen. See `densemtl.adapters.options.AdapterOptions`.
        in_chans: number of channels of images. In a configuration, it follows from the dataset
            (`data.channels`). timm adapts pretrained weights: RGB weights are repeated and scaled.
        mean: mean of each channel of the images, where 255 of 8-bit images is 1; by default, that
            of the pretrained weights. Required with `std` if there are not three channels;
            `densemtl check_data` measures both.
        std: standard deviation of each channel, likewise.

    Attributes:
        feature_info: channels and strides of the maps that `forward` returns.
        size_divisor: number by which height and width of the input must be divisible.
        in_chans: number of channels of images.
        mean: means of the channels in [0, 1] that the pretrained weights expect, or those given.
        std: standard deviations of the channels, likewise.

    Raises:
        ModelError: if timm has no such model, if the model returns no feature pyramid, if it does
            not support the output stride or image size, if pretrained weights are not available, if
            it has no batch normalization and `batch_norm_momentum` is set, or if it does not have
            the layers of `adapters`.

    Example:
        >>> backbone = Backbone("test_resnet", pretrained=False)
        >>> backbone.feature_info
        FeatureInfo(channels=(32, 48, 192, 96), strides=(4, 8, 16, 32))
        >>> [tuple(feature.shape) for feature in backbone(torch.randn(2, 3, 64, 64))]
        [(2, 32, 16, 16), (2, 48, 8, 8), (2, 192, 4, 4), (2, 96, 2, 2)]
    """

    size_divisor: int

    def __init__(
        self,
        name: str,
        *,
        pretrained: bool = True,
        weights: UserPath | None = None,
        weights_match: WeightsMatch = "name",
        options: dict[str, bool | NonNegativeInt | NonNegativeFloat | str | None] | None = None,
        output_stride: Literal[8, 16, 32] = 32,
        img_size: tuple[ImageSide, ImageSide] | None = None,
        batch_norm_momentum: OpenUnitInterval | None = None,
        freeze: Freeze = "none",
        adapters: AdapterOptions | None = None,
        in_chans: NumChannels = NUM_RGB_CHANNELS,
        mean: ChannelMeans | None = None,
        std: ChannelStds | None = None,
    ) -> None:
        super().__init__()
        extra_options = tuple(sorted((options or {}).items()))
        check_normalization(in_chans, mean, std)
        spec = get_model_spec(name, output_stride, img_size, extra_options, in_chans)
        self.name, self._spec = name, spec
        net = self.net = spec.build(pretrained and weights is None)
        if weights is not None:
            _print_once(spec.load_file(self.net, weights, weights_match))
        if batch_norm_momentum is not None:
            _set_batch_norm_momentum(self.net, name, batch_norm_momentum)
        info = net.feature_info
        self.feature_info = FeatureInfo(tuple(info.channels()), tuple(info.reduction()))
        self.size_divisor = max(int(level["reduction"]) for level in info.info)
        self.in_chans = in_chans
        self.mean, self.std = (mean, std) if mean and std else spec.get_mean_std()
        self._fixed_input_size = spec.get_fixed_input_size()
        self._is_nhwc = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        self._level_names = info.module_name()
        self._frozen_names: tuple[str, ...] = ()
        if adapters is not None and freeze != "none":
            raise ModelError(
                "backbone.freeze: backbone.adapters freezes the backbone; remove one of both, and"
                " list what is trained besides the adapters in backbone.adapters.train"
            )
        self._frozen_names = self._freeze(freeze) if adapters is None else self._adapt(adapters)

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation mode; frozen layers stay in evaluation mode.

        Args:
            mode: True for training.

        Returns:
            The backbone itself.
        """
        super().train(mode)
        for name in self._frozen_names:
            self.net.get_submodule(name).eval()
        return self

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the feature pyramid.

        Args:
            image: normalized images (B, C, H, W) of `in_chans` channels; H and W are divisible by
                `size_divisor`.

        Returns:
            Maps (B, C_l, H_l, W_l) of the levels, finest first.

        Raises:
            ModelError: if the model is built for another image size.
        """
        self._check_size(image)
        maps = [self._to_nchw(feature) for feature in self.net(image)]
        return [self.record_map(index, feature) for index, feature in enumerate(maps)]

    @property
    def fixed_input_size(self) -> Size | None:
        """The only supported (height, width) of images, or None if any size is supported."""
        return self._fixed_input_size

    def keep_stages(self, stages: Collection[int]) -> None:
        """Remove the stem and all other stages, after which only `run_stage` can be called.

        Args:
            stages: indices of the stages that are kept.

        Raises:
            ModelError: if the model cannot be run stage by stage.
        """
        plan = self._get_stage_plan()
        keep_modules(self.net, [name for stage in stages for name in plan.module_names[stage]])
        modules = dict(self.net.named_modules())
        self._frozen_names = tuple(name for name in self._frozen_names if name in modules)

    def describe_parameters(self) -> list[ParameterInfo]:
        """Describe the parameters of the model for the optimizer.

        Returns:
            One entry per parameter: its layer, and whether it usually has weight decay.

        Raises:
            ModelError: if timm does not state the layers of the model.
        """
        return describe_parameters(self.net, self._spec.build_whole_model(), self.name)

    @contextmanager
    def dry_run(self) -> Iterator[Tensor]:
        """Provide a small random image for a dry run without side effects.

        Inside the context the model is in evaluation mode and records no gradients. The image has
        the size that the model is built for, or is small and not square.

        Yields:
            A random image (1, C, H, W) in the dtype and on the device of the model.
        """
        height, width = self._fixed_input_size or [
            self.size_divisor * cells for cells in DRY_RUN_FEATURE_SIZE
        ]
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand(1, self.in_chans, height, width, generator=generator, device="cpu")
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                parameter = next(self.parameters())
                yield noise.to(parameter.device, parameter.dtype)
        finally:
            self.train(training)

    def _freeze(self, part: Freeze) -> tuple[str, ...]:
        """Disable gradients, and return the names of modules that stay in evaluation mode."""
        if isinstance(part, int) and part > len(self.feature_info):
            raise ModelError(
                f"backbone.freeze: {self.name!r} has {len(self.feature_info)} stages, not {part}"
            )
        return freeze_parameters(self.net, part, self.get_stage_modules)

    def _adapt(self, options: AdapterOptions) -> tuple[str, ...]:
        """Freeze the network and insert adapters; return what `freeze_except` returns."""
        try:
            frozen_names = freeze_except(self.net, options.train, self.get_stage_modules)
            with self.dry_run() as image:
                chosen = None
                if options.blocks != "all":
                    chosen = [b for stage in self.select_blocks(options.blocks) for b in stage]
                insert_adapters(self.net, options, lambda: self.net(image), chosen)
        except ModelError as error:
            raise ModelError(f"backbone.adapters.{error}") from None
        return frozen_names

    def _to_nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self._is_nhwc else feature

    def _check_size(self, image: Tensor) -> None:
        size = image.shape[-2], image.shape[-1]
        if self._fixed_input_size is not None and size != self._fixed_input_size:
            raise ModelError(
                f"backbone {self.name!r} is built for inputs of {self._fixed_input_size}, not "
                f"{size}: set backbone.img_size to {list(size)}"
            )


@cache
def _print_once(text: str) -> None:
    """Print a line on the main process; several tasks may have backbones with equal weights."""
    if is_main_process():
        print(text)


def _set_batch_norm_momentum(net: nn.Module, name: str, momentum: float) -> None:
    norms = [module for module in net.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        raise ModelError(
            f"backbone {name!r} has no batch normalization: remove backbone.batch_norm_momentum"
        )
    for norm in norms:
        norm.momentum = momentum

"""Any timm model as a pyramid of feature maps; the only file that knows timm's models."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import shorten
from typing import Any, Literal

import torch
from torch import Tensor, nn

from densemtl.errors import ModelError
from densemtl.models.stages import cut, last_block
from densemtl.types import FeatureSpec, Size

Colour = tuple[float, ...]
"""One number for each of R, G, B."""

DEFAULT_STRIDE = 32
FINEST_STRIDE = 4
QUARTERS = 4


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
        img_size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        recipe = _Recipe(name, output_stride, img_size)
        self.name = name
        self.net = recipe.build(pretrained)
        info = self.net.feature_info
        self.spec = FeatureSpec(tuple(info.channels()), tuple(info.reduction()))
        self.multiple = max(int(level["reduction"]) for level in info.info)
        self.mean, self.std = recipe.statistics()
        self._only_size = recipe.only_size()
        self._nhwc = str(getattr(self.net, "output_fmt", "")).endswith("NHWC")
        self._stages = cut(self.net, info.module_name())

    def forward(self, image: Tensor) -> list[Tensor]:
        """Bx3xHxW normalised image, H and W divisible by `multiple` -> NCHW maps, finest first.

        Raises:
            ModelError: an image of another size than the model is built for.
        """
        self._check_size(image)
        return [self._to_nchw(feature) for feature in self.net(image)]

    def run_stem(self, image: Tensor) -> Tensor:
        """Bx3xHxW normalised image -> the NCHW map that stage 0 starts from.

        Raises:
            ModelError: a model that cannot be cut into stages, or an image of a wrong size.
        """
        self._check_size(image)
        return self._run(0, image)

    def run_stage(self, index: int, feature: Tensor) -> Tensor:
        """One stage alone, so that networks can exchange features between stages.

        `run_stem` and then all stages in turn give the same maps as `forward`.

        Args:
            index: 0 .. len(spec) - 1.
            feature: NCHW output of the stage before, of the stem for stage 0.

        Raises:
            ModelError: a model that cannot be cut into stages.
        """
        return self._run(index + 1, self._from_nchw(feature))

    def run_stage_watched(self, index: int, feature: Tensor) -> tuple[Tensor, Tensor]:
        """As `run_stage`, and what enters the stage's last block besides.

        Returns:
            (input of the last block, output of the stage), both NCHW.

        Raises:
            ModelError: a model that cannot be cut into stages, or whose blocks see no maps.
        """
        seen: list[Tensor] = []
        block = last_block(self.stage_modules(index)[-1])
        watch = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            leaving = self.run_stage(index, feature)
        finally:
            watch.remove()
        if seen[0].ndim != leaving.ndim:
            raise ModelError(
                f"backbone {self.name!r}: its blocks see tokens, not maps; choose e.g. a ResNet,"
                " ConvNeXt, EfficientNet or Swin"
            )
        return self._to_nchw(seen[0]), leaving

    def stage_modules(self, index: int) -> list[nn.Module]:
        """The modules that `run_stage(index)` runs, one after the other.

        Raises:
            ModelError: a model that cannot be cut into stages.
        """
        return self._modules_of(index + 1)

    @contextmanager
    def trial(self) -> Iterator[Tensor]:
        """Try the model out without a trace, on the blank 1x3xHxW image that this gives.

        It has the smallest size that the model takes.
        """
        training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield torch.zeros(1, 3, *(self._only_size or (self.multiple, self.multiple)))
        finally:
            self.train(training)

    def _run(self, part: int, feature: Any) -> Tensor:
        for module in self._modules_of(part):
            feature = module(feature)
        if not isinstance(feature, Tensor):
            raise self._uncut()
        return self._to_nchw(feature)

    def _modules_of(self, part: int) -> list[nn.Module]:
        if not self._stages:
            raise self._uncut()
        return [self.net.get_submodule(name) for name in self._stages[part]]

    def _uncut(self) -> ModelError:
        return ModelError(
            f"backbone {self.name!r} cannot be run stage by stage: it is no chain of modules;"
            " choose e.g. a ResNet, ConvNeXt, EfficientNet or Swin"
        )

    def _to_nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 3, 1, 2) if self._nhwc else feature

    def _from_nchw(self, feature: Tensor) -> Tensor:
        return feature.permute(0, 2, 3, 1) if self._nhwc else feature

    def _check_size(self, image: Tensor) -> None:
        size = image.shape[-2], image.shape[-1]
        if self._only_size is not None and size != self._only_size:
            raise ModelError(
                f"backbone {self.name!r} is built for inputs of {self._only_size}, not {size}:"
                f" set backbone.img_size to {list(size)}"
            )


class _Recipe:
    """How to build a timm model as a pyramid: read off a copy that has shapes but no memory."""

    def __init__(self, name: str, output_stride: int, img_size: Size | None) -> None:
        model: Any = _sketch(name)
        self._name = name
        self._takes = _parameters(type(model))
        self._published: Mapping[str, Any] = model.pretrained_cfg
        strides = [int(level["reduction"]) for level in getattr(model, "feature_info", ())]
        coarsest = max(strides, default=1)
        self._img_size = _round_up(img_size, coarsest) if img_size else None
        self._options = {**self._size_options(), "out_indices": _choose_levels(strides)}
        if hasattr(model, "incre_modules"):  # HRNet's own widths, not its classifier's
            self._options["feature_location"] = ""
        if output_stride not in (DEFAULT_STRIDE, coarsest):
            self._options["output_stride"] = output_stride
        self._check()

    def build(self, pretrained: bool) -> Any:
        """The feature network.

        Raises:
            ModelError: its weights cannot be had.
        """
        try:
            return _features(self._name, pretrained, self._options)
        except Exception as error:  # of network, cache and files, raised by several libraries
            if not pretrained:
                raise
            raise ModelError(
                f"backbone {self._name!r}: no pretrained weights ({_brief(error)}); set"
                " backbone.pretrained=false, or bring them into the Hugging Face cache (HF_HOME)"
            ) from error

    def only_size(self) -> Size | None:
        """The one input size it takes, or None where it takes any."""
        if "dynamic_img_size" in self._takes or not self._published.get("fixed_input_size"):
            return None
        _, height, width = self._published["input_size"]
        return self._options.get("img_size", (height, width))

    def statistics(self) -> tuple[Colour, Colour]:
        """Mean and standard deviation of the three channels, in 0..1."""
        return tuple(self._published["mean"]), tuple(self._published["std"])

    def _size_options(self) -> dict[str, Any]:
        """Any input size where the model can, else the one asked for; families differ in this."""
        wanted: dict[str, Any] = {"dynamic_img_size": True, "strict_img_size": False}
        if self._img_size:
            wanted["img_size"] = self._img_size
        return {key: value for key, value in wanted.items() if key in self._takes}

    def _check(self) -> None:
        """Build the feature network without memory, so that weights are fetched for no misfit."""
        asked = self._options.get("output_stride")
        try:
            with torch.device("meta"):
                strides = _features(self._name, False, self._options).feature_info.reduction()
        except Exception as error:  # timm asserts, or raises what each family likes
            raise ModelError(self._refusal(asked, _brief(error))) from error
        if asked and max(strides) != asked:
            raise ModelError(self._refusal(asked, f"it gives {max(strides)}"))

    def _refusal(self, output_stride: int | None, reason: str) -> str:
        backbone = f"backbone {self._name!r}"
        if output_stride is not None:
            trouble = f"has no output stride {output_stride}"
            return f"{backbone} {trouble} ({reason}): leave backbone.output_stride out"
        if "img_size" in self._options:
            trouble = f"cannot be built for inputs of {self._options['img_size']}"
            return f"{backbone} {trouble} ({reason}): leave backbone.img_size out or change it"
        return f"{backbone} gives no feature maps ({reason}): choose another model"


def _sketch(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.split(".")[0], timm.list_models(), n=3)
        known = f"nearest: {', '.join(near)}" if near else "timm.list_models() names them all"
        raise ModelError(f"backbone.name: timm has no model {name!r}; {known}")
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # a tag that the model does not have
        raise ModelError(f"backbone.name: {name!r} cannot be built: {_brief(error)}") from error
    return model


def _features(name: str, pretrained: bool, options: Mapping[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=pretrained, features_only=True, **options)


def _parameters(cls: type[nn.Module]) -> set[str]:
    """The names of a constructor's parameters, those it hands on to its bases included."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    return {name for each in constructors for name in inspect.signature(each).parameters}


def _choose_levels(strides: Sequence[int]) -> tuple[int, ...]:
    """Indices of the pyramid's levels; of a flat model, after each quarter of its blocks."""
    count = len(strides)
    if count > QUARTERS and len(set(strides)) == 1:
        return tuple(count * quarter // QUARTERS - 1 for quarter in range(1, QUARTERS + 1))
    return tuple(index for index, stride in enumerate(strides) if stride >= FINEST_STRIDE)


def _round_up(size: Size, multiple: int) -> Size:
    height, width = (-(-length // multiple) * multiple for length in size)
    return height, width


def _brief(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 120)

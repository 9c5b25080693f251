"""Construction of timm models as feature pyramids, with the options that each family supports."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from densemtl.backbones.weight_files import WeightsMatch, load_weights_file
from densemtl.errors import ModelError, shorten_error, suggest
from densemtl.types import Size

RGBValues = tuple[float, ...]
"""One value for each of R, G and B."""

DEFAULT_OUTPUT_STRIDE = 32
MIN_STRIDE = 4
NUM_SINGLE_SCALE_LEVELS = 4
NUM_RGB_CHANNELS = 3

OWN_OPTIONS = ("img_size", "output_stride", "in_chans", "num_classes", "global_pool")
"""Options of timm models that the configuration sets in other ways."""


class TimmModelSpec:
    """Options with which a timm model is built as a feature pyramid.

    The options are derived from copies of the model on the meta device, which need no memory.

    Args:
        name: name of a timm model, with or without a tag, and with or without `timm/` before it.
        output_stride: stride of the coarsest level.
        img_size: (height, width) of the input in pixels, or None for the default of the model.
        extra_options: further options of timm, such as `drop_path_rate`.
        in_chans: number of channels of images; timm adapts pretrained weights to it.

    Raises:
        ModelError: if timm has no such model, if the model returns no feature pyramid, or if it
            does not support the output stride, image size or an option.
    """

    def __init__(
        self,
        name: str,
        output_stride: int,
        img_size: Size | None,
        extra_options: Mapping[str, Any] = MappingProxyType({}),
        in_chans: int = NUM_RGB_CHANNELS,
    ) -> None:
        name = name.removeprefix("timm/")
        model: Any = _create_meta_model(name)
        self._name = name
        self._parameter_names = _list_constructor_parameters(type(model))
        self._pretrained_cfg: Mapping[str, Any] = model.pretrained_cfg
        strides = [int(level["reduction"]) for level in getattr(model, "feature_info", ())]
        coarsest = max(strides, default=1)
        self._img_size = _round_up(img_size, coarsest) if img_size else None
        self._options = {**self._make_size_options(), "out_indices": _choose_out_indices(strides)}
        if hasattr(model, "incre_modules"):  # HRNet: branch widths instead of classifier widths
            self._options["feature_location"] = ""
        if output_stride not in (DEFAULT_OUTPUT_STRIDE, coarsest):
            self._options["output_stride"] = output_stride
        self._check_extra_options(extra_options)
        self._options |= extra_options
        if in_chans != NUM_RGB_CHANNELS:
            self._options["in_chans"] = in_chans
        self._check_feature_network()

    def build(self, pretrained: bool) -> Any:
        """Build the feature network.

        Args:
            pretrained: whether to load timm's pretrained weights.

        Returns:
            A feature network of timm, which maps an image to a list of maps.

        Raises:
            ModelError: if the pretrained weights are not available.
        """
        try:
            return _create_feature_network(self._name, pretrained, self._options)
        except Exception as error:  # network, cache and file errors of several libraries
            if not pretrained:
                raise
            raise ModelError(
                f"backbone {self._name!r}: no pretrained weights ({shorten_error(error)}); set"
                " backbone.pretrained=false, or copy them into the Hugging Face cache (HF_HOME)"
            ) from error

    def load_file(self, features: nn.Module, file: Path, match: WeightsMatch) -> str:
        """Load a weights file into a feature network.

        Args:
            features: result of `build`, changed in place.
            file: weights file of the model, as in `densemtl.backbones.weight_files`.
            match: whether tensors are assigned by name or by order.

        Returns:
            One line about what was loaded.

        Raises:
            ModelError: if the file cannot be read or does not fit.
        """
        return load_weights_file(features, file, self.build_whole_model(), match)

    def build_whole_model(self) -> nn.Module:
        """Build the model as a classifier on the meta device, with the same options.

        Returns:
            The model, whose tensors have no memory.
        """
        import timm

        ignored = ("out_indices", "feature_location")
        options = {key: value for key, value in self._options.items() if key not in ignored}
        with torch.device("meta"):
            model: nn.Module = timm.create_model(self._name, pretrained=False, **options)
        return model

    def get_fixed_input_size(self) -> Size | None:
        """Return the only supported input size, or None if the model accepts any size.

        Returns:
            (height, width) in pixels, or None.
        """
        if "dynamic_img_size" in self._parameter_names or not self._pretrained_cfg.get(
            "fixed_input_size"
        ):
            return None
        _, height, width = self._pretrained_cfg["input_size"]
        return self._img_size if "img_size" in self._options else (height, width)

    def get_mean_std(self) -> tuple[RGBValues, RGBValues]:
        """Return the normalization that the pretrained weights expect.

        Returns:
            Means and standard deviations of the RGB channels in [0, 1].
        """
        return tuple(self._pretrained_cfg["mean"]), tuple(self._pretrained_cfg["std"])

    def _make_size_options(self) -> dict[str, Any]:
        """Return the options that allow any input size, or the requested size.

        Only options that the constructor of the model has are returned; families of models differ.
        """
        options: dict[str, Any] = {"dynamic_img_size": True, "strict_img_size": False}
        if self._img_size:
            options["img_size"] = self._img_size
        return {key: value for key, value in options.items() if key in self._parameter_names}

    def _check_extra_options(self, extra_options: Mapping[str, Any]) -> None:
        known = self._parameter_names - {"self", "args", "kwargs"}
        for name in extra_options:
            if name not in known or name in (*self._options, *OWN_OPTIONS):
                own = " (it has a key of its own)" if name in OWN_OPTIONS else ""
                raise ModelError(
                    f"backbone.options.{name}: {self._name!r} has no such option{own};"
                    f" {suggest(name, sorted(known - set(OWN_OPTIONS)))}"
                )

    def _check_feature_network(self) -> None:
        """Check that the feature network can be built, before any weights are downloaded."""
        output_stride = self._options.get("output_stride")
        try:
            with torch.device("meta"):
                strides = _create_feature_network(
                    self._name, False, self._options
                ).feature_info.reduction()
        except Exception as error:  # families of timm models raise different exceptions
            raise ModelError(self._describe_error(output_stride, shorten_error(error))) from error
        if output_stride and max(strides) != output_stride:
            reason = f"its output stride is {max(strides)}"
            raise ModelError(self._describe_error(output_stride, reason))

    def _describe_error(self, output_stride: int | None, reason: str) -> str:
        backbone = f"backbone {self._name!r}"
        if output_stride is not None:
            problem = f"has no output stride {output_stride}"
            return f"{backbone} {problem} ({reason}): remove backbone.output_stride"
        if "in_chans" in self._options:
            problem = f"cannot be built for images of {self._options['in_chans']} channels"
            return f"{backbone} {problem} ({reason}): choose another model"
        if "img_size" in self._options:
            problem = f"cannot be built for inputs of {self._options['img_size']}"
            return f"{backbone} {problem} ({reason}): remove or change backbone.img_size"
        return f"{backbone} returns no feature maps ({reason}): choose another model"


@cache
def get_model_spec(
    name: str,
    output_stride: int,
    img_size: Size | None,
    extra_options: tuple[tuple[str, Any], ...] = (),
    in_chans: int = NUM_RGB_CHANNELS,
) -> TimmModelSpec:
    """Return the specification of a model; it is cached, as several tasks may use the same model.

    Args:
        name: name of a timm model, with or without a tag.
        output_stride: stride of the coarsest level.
        img_size: (height, width) of the input in pixels, or None for the default of the model.
        extra_options: names and values of further options of timm.
        in_chans: number of channels of images.

    Returns:
        The specification.

    Raises:
        ModelError: if the model cannot be built as a feature pyramid with these options.
    """
    return TimmModelSpec(name, output_stride, img_size, dict(extra_options), in_chans)


def _create_meta_model(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        all_names = "timm.list_models() lists all names"
        near = suggest(name.split(".")[0], timm.list_models(), all_names)
        raise ModelError(f"backbone.name: timm has no model {name!r}; {near}")
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # e.g. an unknown tag
        raise ModelError(
            f"backbone.name: {name!r} cannot be built: {shorten_error(error)}"
        ) from error
    return model


def _create_feature_network(name: str, pretrained: bool, options: Mapping[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=pretrained, features_only=True, **options)


def _list_constructor_parameters(cls: type[nn.Module]) -> set[str]:
    """Return the names of the parameters of the constructors of a class and its base classes."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    return {name for init in constructors for name in inspect.signature(init).parameters}


def _choose_out_indices(strides: Sequence[int]) -> tuple[int, ...]:
    """Return the indices of the levels; for a single-scale model, of each quarter of its blocks."""
    count = len(strides)
    if count > NUM_SINGLE_SCALE_LEVELS and len(set(strides)) == 1:
        return tuple(
            count * quarter // NUM_SINGLE_SCALE_LEVELS - 1
            for quarter in range(1, NUM_SINGLE_SCALE_LEVELS + 1)
        )
    return tuple(index for index, stride in enumerate(strides) if stride >= MIN_STRIDE)


def _round_up(size: Size, multiple: int) -> Size:
    height, width = (-(-length // multiple) * multiple for length in size)
    return height, width

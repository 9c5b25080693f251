"""How to build any timm model as a pyramid: what each family takes, and what it refuses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

from densemtl.errors import ModelError, shorten_error, suggest
from densemtl.types import Size

RGBValues = tuple[float, ...]
"""One number for each of R, G, B."""

DEFAULT_OUTPUT_STRIDE = 32
MIN_STRIDE = 4
NUM_SINGLE_SCALE_LEVELS = 4


class TimmModelSpec:
    """How to build a timm model as a pyramid: read off a copy that has shapes but no memory."""

    def __init__(self, name: str, output_stride: int, img_size: Size | None) -> None:
        model: Any = _create_meta_model(name)
        self._name = name
        self._parameter_names = _list_constructor_parameters(type(model))
        self._pretrained_cfg: Mapping[str, Any] = model.pretrained_cfg
        strides = [int(level["reduction"]) for level in getattr(model, "feature_info", ())]
        coarsest = max(strides, default=1)
        self._img_size = _round_up(img_size, coarsest) if img_size else None
        self._options = {**self._make_size_options(), "out_indices": _choose_out_indices(strides)}
        if hasattr(model, "incre_modules"):  # HRNet's own widths, not its classifier's
            self._options["feature_location"] = ""
        if output_stride not in (DEFAULT_OUTPUT_STRIDE, coarsest):
            self._options["output_stride"] = output_stride
        self._check_feature_network()

    def build(self, pretrained: bool) -> Any:
        """The feature network.

        Raises:
            ModelError: its weights cannot be had.
        """
        try:
            return _create_feature_network(self._name, pretrained, self._options)
        except Exception as error:  # of network, cache and files, raised by several libraries
            if not pretrained:
                raise
            raise ModelError(
                f"backbone {self._name!r}: no pretrained weights ({shorten_error(error)}); set"
                " backbone.pretrained=false, or bring them into the Hugging Face cache (HF_HOME)"
            ) from error

    def get_fixed_input_size(self) -> Size | None:
        """The one input size it takes, or None where it takes any."""
        if "dynamic_img_size" in self._parameter_names or not self._pretrained_cfg.get(
            "fixed_input_size"
        ):
            return None
        _, height, width = self._pretrained_cfg["input_size"]
        return self._options.get("img_size", (height, width))

    def get_mean_std(self) -> tuple[RGBValues, RGBValues]:
        """Mean and standard deviation of the three channels, in 0..1."""
        return tuple(self._pretrained_cfg["mean"]), tuple(self._pretrained_cfg["std"])

    def _make_size_options(self) -> dict[str, Any]:
        """Any input size where the model can, else the one asked for; families differ in this."""
        options: dict[str, Any] = {"dynamic_img_size": True, "strict_img_size": False}
        if self._img_size:
            options["img_size"] = self._img_size
        return {key: value for key, value in options.items() if key in self._parameter_names}

    def _check_feature_network(self) -> None:
        """Build the feature network without memory, so that weights are fetched for no misfit."""
        asked = self._options.get("output_stride")
        try:
            with torch.device("meta"):
                strides = _create_feature_network(
                    self._name, False, self._options
                ).feature_info.reduction()
        except Exception as error:  # timm asserts, or raises what each family likes
            raise ModelError(self._describe_error(asked, shorten_error(error))) from error
        if asked and max(strides) != asked:
            raise ModelError(self._describe_error(asked, f"it gives {max(strides)}"))

    def _describe_error(self, output_stride: int | None, reason: str) -> str:
        backbone = f"backbone {self._name!r}"
        if output_stride is not None:
            trouble = f"has no output stride {output_stride}"
            return f"{backbone} {trouble} ({reason}): leave backbone.output_stride out"
        if "img_size" in self._options:
            trouble = f"cannot be built for inputs of {self._options['img_size']}"
            return f"{backbone} {trouble} ({reason}): leave backbone.img_size out or change it"
        return f"{backbone} gives no feature maps ({reason}): choose another model"


@cache
def get_model_spec(name: str, output_stride: int, img_size: Size | None) -> TimmModelSpec:
    """The recipe, found out once however many networks are built by it: one a task, say."""
    return TimmModelSpec(name, output_stride, img_size)


def _create_meta_model(name: str) -> nn.Module:
    import timm

    if not timm.is_model(name):
        all_names = "timm.list_models() names them all"
        near = suggest(name.split(".")[0], timm.list_models(), all_names)
        raise ModelError(f"backbone.name: timm has no model {name!r}; {near}")
    try:
        with torch.device("meta"):
            model: nn.Module = timm.create_model(name, pretrained=False)
    except RuntimeError as error:  # a tag that the model does not have
        raise ModelError(
            f"backbone.name: {name!r} cannot be built: {shorten_error(error)}"
        ) from error
    return model


def _create_feature_network(name: str, pretrained: bool, options: Mapping[str, Any]) -> Any:
    import timm

    return timm.create_model(name, pretrained=pretrained, features_only=True, **options)


def _list_constructor_parameters(cls: type[nn.Module]) -> set[str]:
    """The names of a constructor's parameters, those it hands on to its bases included."""
    constructors = [vars(base)["__init__"] for base in cls.__mro__ if "__init__" in vars(base)]
    return {name for init in constructors for name in inspect.signature(init).parameters}


def _choose_out_indices(strides: Sequence[int]) -> tuple[int, ...]:
    """Indices of the pyramid's levels; of a flat model, after each quarter of its blocks."""
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

"""The sections of an experiment: frozen values with their defaults and bounds, nothing else.

Each part of the toolkit is handed its own section; none sees the whole experiment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import (
    ImageSide,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    PositiveUnitInterval,
    UnitInterval,
)

FitMode = Literal["resize", "pad"]
Scale = Annotated[float, Field(ge=0.1, le=10)]


def _check_ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise PydanticCustomError("order", "give the smaller one first")
    return bounds


ScaleRange = Annotated[tuple[Scale, Scale], AfterValidator(_check_ordered)]


class Section(BaseModel):
    """A strict, frozen section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class InputConfig(Section):
    """What the network sees, and how an image comes to that size."""

    size: tuple[ImageSide, ImageSide] = (480, 640)
    """(height, width) in pixels."""
    fit: FitMode = "resize"
    """Stretch images to the size, or keep their pixels and pad or crop."""


class ColorJitterConfig(Section):
    """Random colour."""

    brightness: UnitInterval = 0.125
    """Largest relative change of all values."""
    contrast: UnitInterval = 0.5
    """Likewise of the distance to the mean grey."""
    saturation: UnitInterval = 0.5
    """Likewise of the distance to the pixel's grey."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Largest turn, as a part of the colour circle."""


class AugmentConfig(Section):
    """The distribution of training views."""

    scale_range: ScaleRange = (1.0, 1.0)
    """Bounds of a uniform zoom; above 1 things look nearer, and depth is divided by it."""
    scales: tuple[Scale, ...] = ()
    """When given, the zoom is chosen from these with equal chance instead."""
    crop: Literal["center", "random"] = "center"
    """Where the seen box lies when it is smaller or larger than the image."""
    max_rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest turn in degrees, uniform in both directions."""
    flip_prob: UnitInterval = 0.5
    """Chance of a mirror."""
    cat_max_ratio: PositiveUnitInterval = 1.0
    """Redraw a crop in which one class of `semseg` covers more than this share of the valid pixels,
    up to ten times (ATRC's cat_max_ratio); 1 never redraws."""
    color_jitter: ColorJitterConfig | None = None
    """Random colour, or null for none."""
    albumentations: tuple[dict[str, Any], ...] = ()
    """Transforms of the image alone, by albumentations, after it: a class by `name`, with its
    options and its chance `p` beside it."""


def _parse_cache(value: Any) -> Any:
    """Yes and no, as older files have it."""
    return {True: "memory", False: "none"}.get(value, value) if isinstance(value, bool) else value


class LoaderConfig(Section):
    """Batches and workers."""

    batch_size: PositiveInt = 8
    """Images in a batch of training."""
    eval_batch_size: PositiveInt = 8
    """Images in a batch of evaluation."""
    num_workers: NonNegativeInt = 2
    """Processes that read and augment, a split; 0 reads between steps."""
    cache: Annotated[Literal["none", "memory", "disk"], BeforeValidator(_parse_cache)] = "none"
    """Keep decoded samples in "memory" (or true), read ahead at the start, or on "disk", written as
    they are first read; "none" (or false) decodes them each time."""
    cache_dir: Path = Path("~/.cache/densemtl")
    """Of the cache on disk, best on a fast local one."""
    on_corrupt: Literal["stop", "skip"] = "stop"
    """Stop at a file that cannot be read, or skip its image: all are then read once before
    training, and the broken ones told and counted."""


class OptimConfig(Section):
    """A timm optimiser."""

    name: str = "adamw"
    """Of the optimiser in timm."""
    lr: PositiveFloat = 1e-3
    """The highest rate, before `lr_scale`."""
    weight_decay: NonNegativeFloat = 1e-4
    """Of all that the network learns; what a balancer learns has none."""
    momentum: UnitInterval = 0.9
    """Of optimisers that have one."""
    lr_scale: dict[str, PositiveFloat] = {}
    """{group: factor of its rate}; groups are "shared", "fusion", each task's name, "balancing"."""


class ScheduleConfig(Section):
    """A timm learning-rate schedule over the whole run, with a linear warm-up in epochs."""

    name: Literal["poly", "cosine", "constant"] = "poly"
    """Of the way down from `optim.lr`."""
    power: PositiveFloat = 0.9
    """Of `poly`."""
    interval: Literal["epoch", "step"] = "step"
    """Whether the rate falls with each epoch or each step."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Linear rise before; may be part of an epoch."""
    min_lr: NonNegativeFloat = 0.0
    """Rate at the end."""


class TrainConfig(Section):
    """The loop."""

    epochs: PositiveInt = 100
    """Passes over the training set."""
    amp: Literal["none", "bf16", "fp16"] = "none"
    """Autocast type; fp16 scales the loss."""
    grad_accum_steps: PositiveInt = 1
    """Batches that one step joins, each counting by its labels."""
    max_grad_norm: PositiveFloat | None = None
    """Largest gradient norm, or null for no clipping."""
    ema_decay: OpenUnitInterval | None = None
    """Decay of an exponential moving average of the weights, which is then what is evaluated and
    saved; null for none. It starts lower and rises to this with the steps."""
    eval_every: PositiveInt = 10
    """Epochs between validations; the last epoch is always validated."""
    visualize_every: NonNegativeInt = 10
    """Epochs between pictures of predictions; 0 draws them at the end alone."""
    num_vis_images: PositiveInt = 6
    """Images in a picture."""
    grad_similarity_every: NonNegativeInt = 0
    """Epochs between measurements of the tasks' gradient cosines; 0 for none."""
    log_every_steps: PositiveInt = 20
    """Steps whose mean losses make one line of the log."""
    checkpoint_every_steps: PositiveInt | None = None
    """Steps between checkpoints inside an epoch; each epoch ends with one."""
    fsdp: bool = False
    """Of several processes each keeps a part of the weights, their gradients and the optimiser's
    state alone (FSDP2)."""
    channels_last: bool = True
    """The memory layout that convolutions are fastest in."""
    grad_checkpointing: bool = False
    """Keep what enters a block alone, and compute its inside again in the backward pass: less
    memory for a third more work, and the same numbers."""
    compile: bool = False
    """Let torch.compile join operations, which takes a minute at the start; pays on GPUs. Goes with
    all architectures and with `checkpoint_activations`."""
    on_non_finite: Literal["stop", "skip"] = "stop"
    """Stop at a loss that is not finite, or skip its step with a warning."""

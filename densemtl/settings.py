"""The sections of an experiment: frozen values with their defaults and bounds, nothing else.

Each part of the toolkit is handed its own section; none sees the whole experiment.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from densemtl.limits import (
    Count,
    Fraction,
    NonNegative,
    OpenFraction,
    Positive,
    PositiveFraction,
    Side,
    Whole,
)

Fit = Literal["resize", "pad"]


class Section(BaseModel):
    """A strict, frozen section: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSettings(Section):
    """What the network sees: (height, width), and how an image comes to that size."""

    size: tuple[Side, Side] = (480, 640)
    fit: Fit = Field("resize", description="stretch to size, or keep pixels and pad or crop")


class JitterSettings(Section):
    """Random colour: largest relative changes, and hue shift as a part of the colour circle."""

    brightness: Fraction = 0.125
    contrast: Fraction = 0.5
    saturation: Fraction = 0.5
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05


class AugmentSettings(Section):
    """The distribution of training views.

    Attributes:
        zooms: bounds of a uniform zoom; above 1 things look nearer, and depth is divided by it.
        zoom_choices: when given, the zoom is chosen from these with equal chance instead.
        crop: where the seen box lies when it is smaller or larger than the image.
        rotate: largest turn in degrees, uniform in both directions.
        flip: chance of a mirror.
        max_class_ratio: redraw a crop in which one class of `semseg` covers more than this share
            of the valid pixels, up to ten times (ATRC's cat_max_ratio); 1 never redraws.
        jitter: random colour, or null for none.
        pixels: transforms of the image alone, by albumentations, after it: a class by `name`, with
            its options and its chance `p` beside it.
    """

    zooms: tuple[Positive, Positive] = (1.0, 1.0)
    zoom_choices: tuple[Positive, ...] = ()
    crop: Literal["centre", "random"] = "centre"
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    flip: Fraction = 0.5
    max_class_ratio: PositiveFraction = 1.0
    jitter: JitterSettings | None = None
    pixels: tuple[dict[str, Any], ...] = ()


def _cache(value: Any) -> Any:
    """Yes and no, as older files have it."""
    return {True: "memory", False: "none"}.get(value, value) if isinstance(value, bool) else value


class LoaderSettings(Section):
    """Batches and workers.

    Attributes:
        batch_size: images in a batch of training.
        eval_batch_size: images in a batch of evaluation.
        workers: processes that read and augment, a split; 0 reads between steps.
        cache: keep decoded samples in "memory" (or true), read ahead at the start, or on "disk",
            written as they are first read; "none" (or false) decodes them each time.
        cache_folder: of the cache on disk, best on a fast local one.
        corrupt: stop at a file that cannot be read, or skip its image: all are then read once
            before training, and the broken ones told and counted.
    """

    batch_size: Count = 8
    eval_batch_size: Count = 8
    workers: Whole = 2
    cache: Annotated[Literal["none", "memory", "disk"], BeforeValidator(_cache)] = "none"
    cache_folder: Path = Path("~/.cache/densemtl")
    corrupt: Literal["stop", "skip"] = "stop"


class OptimSettings(Section):
    """A timm optimiser by name. `lr_scale` multiplies the rate of a parameter group for good.

    Attributes:
        lr_scale: {group: factor}; groups are "shared", "fusion", each task's name, "balancing".
    """

    name: str = "adamw"
    lr: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    momentum: Fraction = 0.9
    lr_scale: dict[str, Positive] = {}


class ScheduleSettings(Section):
    """A timm learning-rate schedule over the whole run, with a linear warm-up in epochs."""

    name: Literal["poly", "cosine", "constant"] = "poly"
    power: Positive = 0.9
    per: Literal["epoch", "iteration"] = "iteration"
    warmup_epochs: NonNegative = 0.0
    final_lr: NonNegative = 0.0


class TrainSettings(Section):
    """The loop.

    Attributes:
        epochs: passes over the training set.
        amp: autocast type; fp16 scales the loss.
        accumulate: batches that one step joins, each counting by its labels.
        clip_norm: largest gradient norm, or null for no clipping.
        ema: decay of an exponential moving average of the weights, which is then what is
            evaluated and saved; null for none. It starts lower and rises to this with the steps.
        eval_every: epochs between validations; the last epoch is always validated.
        panels_every: epochs between pictures of predictions; 0 draws them at the end alone.
        panels: images in a picture.
        relations_every: epochs between measurements of the tasks' gradient cosines; 0 for none.
        log_every: steps whose mean losses make one line of the log.
        checkpoint_steps: steps between checkpoints inside an epoch; each epoch ends with one.
        shard: of several processes each keeps a part of the weights, their gradients and the
            optimiser's state alone (FSDP2).
        channels_last: the memory layout that convolutions are fastest in.
        checkpoint_activations: keep what enters a block alone, and compute its inside again in the
            backward pass: less memory for a third more work, and the same numbers.
        compile: let torch.compile join operations, which takes a minute at the start; pays on GPUs.
            Goes with all architectures and with `checkpoint_activations`.
        non_finite: stop at a loss that is not finite, or skip its step with a warning.
    """

    epochs: Count = 100
    amp: Literal["none", "bf16", "fp16"] = "none"
    accumulate: Count = 1
    clip_norm: Positive | None = None
    ema: OpenFraction | None = None
    eval_every: Count = 10
    panels_every: Whole = 10
    panels: Count = 6
    relations_every: Whole = 0
    log_every: Count = 20
    checkpoint_steps: Count | None = None
    shard: bool = False
    channels_last: bool = True
    checkpoint_activations: bool = False
    compile: bool = False
    non_finite: Literal["stop", "skip"] = "stop"

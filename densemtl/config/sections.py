"""Sections of the configuration: immutable values with defaults and limits.

Each package receives its own section, not the whole configuration. The docstrings of the fields are
the descriptions in the JSON schema and in the configuration reference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import (
    CheckedPath,
    ImageSide,
    NonNegativeFloat,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveFloat,
    PositiveInt,
    PositiveUnitInterval,
    SmallPositiveInt,
    UnitInterval,
    replace_union_errors,
)

CONFLICT = "conflict"
"""Type of pydantic's error for keys that exclude each other."""

FitMode = Literal["resize", "pad"]
WorkerCount = Annotated[
    NonNegativeInt | Literal["auto"], replace_union_errors("a number from 0, or auto")
]
"""Number of worker processes."""

AutoSwitch = Annotated[bool | Literal["auto"], replace_union_errors("true, false or auto")]
Scale = Annotated[float, Field(ge=0.1, le=10)]


def check_ordered(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return a range, or raise an error of pydantic if its first value is the larger one."""
    if bounds[0] > bounds[1]:
        raise PydanticCustomError("order", "give the smaller value first")
    return bounds


ScaleRange = Annotated[tuple[Scale, Scale], AfterValidator(check_ordered)]


class Section(BaseModel):
    """Base class of sections: immutable; unknown keys and wrong types are errors."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        ser_json_inf_nan="constants",  # for options that allow infinity
        use_attribute_docstrings=True,
    )


class InputConfig(Section):
    """Input size of the model, and how images are brought to that size."""

    size: tuple[ImageSide, ImageSide] = (480, 640)
    """Height and width of the input in pixels."""
    fit: FitMode = "resize"
    """`resize` stretches images to the input size; `pad` keeps their pixels and pads or crops."""


class ColorJitterConfig(Section):
    """Random changes of brightness, contrast, saturation and hue."""

    brightness: UnitInterval = 0.125
    """Maximum relative change of all values; 0.125 gives factors of 0.875 to 1.125."""
    contrast: UnitInterval = 0.5
    """Maximum relative change of the difference from the mean gray of the image."""
    saturation: UnitInterval = 0.5
    """Maximum relative change of the difference from the gray of the pixel."""
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Maximum rotation of hue, as a fraction of the color circle."""


class AugmentConfig(Section):
    """Random augmentation of training samples."""

    scale_range: ScaleRange = (1.0, 1.0)
    """Range of the random scale (uniform); a scale above 1 enlarges the image and divides depth."""
    scales: tuple[Scale, ...] = ()
    """Scales to choose from with equal probability instead of `scale_range`; empty by default."""
    crop: Literal["center", "random"] = "center"
    """Position of the crop if it is smaller or larger than the image."""
    max_rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Maximum rotation in degrees, sampled uniformly in both directions; 0 for none. The image is
    rotated in its own aspect ratio, before it is resized."""
    flip_prob: UnitInterval = 0.5
    """Probability of a horizontal flip."""
    cat_max_ratio: PositiveUnitInterval = 1.0
    """Maximum fraction of valid pixels that one class of `semseg` may cover in a random crop. Other
    crops are sampled again, up to ten times, as in ATRC; 1 disables this."""
    color_jitter: ColorJitterConfig | None = None
    """Random color changes, or null for none."""
    albumentations: tuple[dict[str, Any], ...] = ()
    """Transforms of albumentations that change only the image, applied after `color_jitter`. Each
    entry has the `name` of the class, its options and its probability `p`."""
    num_views: SmallPositiveInt | None = None
    """Number of different views of each image, which the epochs repeat in turn; null for another
    one in each epoch. A small number limits the size of `loader.cache: features`."""


def _parse_cache(value: Any) -> Any:
    """Convert true and false, which are accepted as well."""
    return {True: "memory", False: "none"}.get(value, value) if isinstance(value, bool) else value


class LoaderConfig(Section):
    """Batch sizes, worker processes and caching."""

    batch_size: PositiveInt = 8
    """Number of images per training batch, over all processes."""
    eval_batch_size: PositiveInt = 8
    """Number of images per evaluation batch and process."""
    num_workers: WorkerCount = "auto"
    """Number of worker processes per split that read and augment; 0 uses the main process. `auto`
    uses one per core of each process, at most 8 if the machine has a GPU, else at most 2."""
    cache: Annotated[
        Literal["none", "memory", "disk", "features"], BeforeValidator(_parse_cache)
    ] = "none"
    """Cache of decoded samples: `memory` (or true) is filled at the start, `disk` when samples are
    first read; `none` (or false) decodes them each time. `features` stores the features of a frozen
    backbone and the labels on disk before training, which then skips the backbone."""
    cache_dir: CheckedPath = Path("~/.cache/densemtl")
    """Folder of the cache on disk, preferably on a fast local disk."""
    cache_max_gb: PositiveFloat = 100.0
    """Maximum size of the cached features of a split in GB; it is printed before training."""
    on_corrupt: Literal["stop", "skip"] = "stop"
    """What to do if a file cannot be read: `stop` with an error, or `skip` its image. To skip, all
    files are read once before training, and the corrupt ones are listed and counted."""


OptimizerOption = Annotated[
    bool | NonNegativeInt | NonNegativeFloat | str | tuple[NonNegativeFloat, ...] | None,
    replace_union_errors("a number from 0, a list of these, a word, true, false or null"),
]


class OptimConfig(Section):
    """Optimizer of timm."""

    name: str = "adamw"
    """Name of the optimizer in timm."""
    lr: PositiveFloat = 1e-3
    """Maximum learning rate, before `lr_scale`."""
    weight_decay: NonNegativeFloat = 1e-4
    """Weight decay of the model; parameters of the balancing method have none."""
    weight_decay_on: Literal["all", "weights"] = "all"
    """Parameters with weight decay: `all`, or only `weights` of layers, as usual for transformers:
    not normalization layers, biases, and embeddings of tokens and positions."""
    momentum: UnitInterval = 0.9
    """Momentum, for optimizers that have this option."""
    options: dict[str, OptimizerOption] = {}
    """Other options of the optimizer, such as `{betas: [0.9, 0.95]}` or `{nesterov: false}`."""
    lr_scale: dict[str, PositiveFloat] = {}
    """Factors of the learning rate of parameter groups: shared, fusion, balancing or a task."""
    layer_decay: PositiveUnitInterval | None = None
    """Factor of the learning rate from each layer of the backbone to the layer before it, with the
    layers of timm; heads and decoder have the full rate. Typical are 0.65 to 0.9; null for none."""


class ScheduleConfig(Section):
    """Learning-rate schedule of timm over the whole run, after a linear warm-up."""

    name: Literal["poly", "cosine", "constant"] = "poly"
    """Schedule of the learning rate from `optim.lr` to `min_lr`."""
    power: PositiveFloat = 0.9
    """Exponent of the schedule `poly`."""
    interval: Literal["epoch", "step"] = "step"
    """Whether the learning rate changes after each epoch or each step."""
    warmup_epochs: NonNegativeFloat = 0.0
    """Length of the linear warm-up in epochs; may be fractional, 0 for none."""
    min_lr: NonNegativeFloat = 0.0
    """Learning rate at the end of the run."""


class EarlyStoppingConfig(Section):
    """End of the training when validations no longer improve."""

    patience: PositiveInt = 5
    """Number of validations without improvement after which the training ends."""
    min_delta: NonNegativeFloat = 0.0
    """Mean relative gain over all tasks that counts as an improvement; 0.01 is one percent."""


class ExtensionConfig(Section):
    """Further epochs after the end of a run, written by `densemtl train --extend`."""

    start_step: PositiveInt
    """Number of finished optimizer steps at which the extension begins."""
    epochs: PositiveInt
    """Number of further passes over the training split."""
    lr_factor: PositiveFloat = 1.0
    """Factor of the learning rates of the schedule, which starts again without warm-up."""


class AsyncUpdatesConfig(Section):
    """Updates of the parameters of each task when it has seen enough labeled images."""

    batch_sizes: dict[str, PositiveInt] = {}
    """{task or shared: number of images between updates}; by default that of an optimizer step,
    `loader.batch_size` times `grad_accum_steps`. Images count if they have a label of the task, or
    of any task for `shared`, which is everything that belongs to no single task."""


class TrainConfig(Section):
    """Training loop."""

    epochs: PositiveInt | None = 100
    """Number of passes over the training split; null if `steps` is given."""
    steps: PositiveInt | None = None
    """Number of optimizer steps of the whole run, instead of `epochs`."""
    extensions: tuple[ExtensionConfig, ...] = ()
    """Further epochs after the end of the run; written by `densemtl train --extend N`."""
    amp: Literal["auto", "none", "bf16", "fp16"] = "auto"
    """Type of automatic mixed precision. "auto" is bf16 on hardware with bfloat16 instructions, and
    none (float32) otherwise. fp16 also scales the loss."""
    grad_accum_steps: PositiveInt = 1
    """Number of micro-batches per optimizer step, whose joint loss is minimized."""
    max_grad_norm: PositiveFloat | None = None
    """Maximum norm of the gradient, or null for no clipping."""
    ema_decay: OpenUnitInterval | None = None
    """Decay of an exponential moving average of the weights, which replaces them in evaluation and
    saved files; null for none. The decay increases from a lower value during the first steps."""
    eval_every: PositiveInt = 10
    """Number of epochs between validations; the end of the run is always validated."""
    eval_every_steps: PositiveInt | None = None
    """Number of steps between validations, instead of `eval_every`; null for epochs."""
    early_stopping: EarlyStoppingConfig | None = None
    """When to end the training before its last epoch, such as `{patience: 5}`; null for never."""
    visualize_every: NonNegativeInt = 10
    """Number of epochs between figures of predictions; 0 draws them only at the end."""
    num_vis_images: PositiveInt = 6
    """Number of images in a figure of predictions."""
    grad_similarity_every: NonNegativeInt = 0
    """Number of epochs between measurements of cosine similarity of task gradients; 0 for none."""
    log_every_steps: PositiveInt = 20
    """Number of steps between log lines, which contain the mean losses of these steps."""
    checkpoint_every_steps: PositiveInt | None = None
    """Number of steps between checkpoints within an epoch; null saves only after each epoch."""
    async_checkpoints: AutoSwitch = "auto"
    """Copy the state of a checkpoint to memory of the CPU, and write it while the training
    continues. "auto" is true on NVIDIA and AMD GPUs; elsewhere, the copy needs memory that the
    training would share."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer state over several processes (FSDP2)."""
    channels_last: AutoSwitch = "auto"
    """Memory layout of images and convolutions. "auto" measures two steps in each layout at the
    start of a run; a resumed run keeps the choice."""
    grad_checkpointing: bool = False
    """Store only the inputs of blocks and recompute their activations in the backward pass. This
    saves memory for about a third more computation, with identical results."""
    tf32: bool = True
    """Multiply matrices and convolve on GPUs in TF32 where autocast does not apply: faster than
    float32, with 10 bits of precision. False computes in float32."""
    deterministic: bool = False
    """Use deterministic algorithms on GPUs, where training is otherwise not bit-exactly the same
    twice. Operations without one give a warning. CPUs are always deterministic."""
    sequential_heads: bool = False
    """Run the heads one after another, forward and backward, and then the shared part backward
    once. Memory does not grow with the number of tasks, and gradients are the same. For decoders
    whose tasks share nothing after the backbone, and for methods that weight losses."""
    async_updates: AsyncUpdatesConfig | None = None
    """Update the parameters of each task separately, when the number of images with labels of this
    task reaches its own batch size, for images that have labels of some tasks only; `{}` for equal
    batch sizes, null for updates of all parameters in each step."""
    compile: bool = False
    """Fuse operations with torch.compile, which takes about a minute at the start and is mainly
    useful on GPUs. It works with all decoders and with `grad_checkpointing`."""
    on_non_finite: Literal["stop", "skip"] = "stop"
    """What to do if a loss is not finite: `stop` with an error, or `skip` the step and warn."""

    @model_validator(mode="before")
    @classmethod
    def _check_length(cls, values: Any) -> Any:
        """Replace the default of `epochs` if `steps` is given; check that only one is given."""
        if not isinstance(values, dict):
            return values
        if values.get("steps") is None:
            if "epochs" in values and values["epochs"] is None:
                raise PydanticCustomError(CONFLICT, "set epochs or steps")
            return values
        if values.get("epochs") is not None:
            raise PydanticCustomError(CONFLICT, "set either epochs or steps, not both")
        return {**values, "epochs": None}

"""Options of the adapters of a backbone."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from densemtl.config.constraints import PositiveFloat, replace_union_errors
from densemtl.config.sections import CONFLICT, Section


def _check_distinct(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(numbers)) < len(numbers):
        raise ValueError("numbers must differ")
    return numbers


Rank = Annotated[int, Field(ge=1, le=4096)]
"""Rank of the change of a weight matrix."""

DropoutRate = Annotated[float, Field(ge=0, lt=1)]

BlockSelection = Annotated[
    Literal["all", "last_of_stage"]
    | Annotated[
        tuple[Annotated[int, Field(ge=0, le=999, strict=True)], ...],
        Field(min_length=1),
        AfterValidator(_check_distinct),
    ],
    replace_union_errors("all, last_of_stage or a list of different numbers of blocks from 0"),
]
"""Blocks of a backbone: all, the last one of each stage, or numbers of blocks from 0, in order over
all stages."""

AdapterKind = Literal["lora", "dora", "svd"]

TrainedPart = Literal["norm", "position", "stem", "downsample", "bias"]
"""Part of a backbone that may be trained besides its adapters."""


class ShrinkOptions(Section):
    """Shrinking of the rank of adapters after each epoch, as in FAAR."""

    keep: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the importance of the ranks that is kept, by as few ranks as possible."""
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay per step of the moving average of the importance."""


class AdapterOptions(Section):
    """Adapters of a backbone, whose own weights are frozen."""

    kind: AdapterKind = "lora"
    """How the weight of a layer is changed: `lora` adds a matrix of low rank, `dora` also changes
    the norms of the rows, and `svd` scales the singular values."""
    rank: Rank = 16
    """Rank of the change; for `svd`, the number of knots of the function that scales the singular
    values."""
    scale: PositiveFloat = 4.0
    """Factor of the change of `lora` and `dora`; it is not divided by the rank."""
    dropout: DropoutRate = 0.0
    """Dropout rate of the input of the adapters; the frozen layers read the input itself. For
    `lora` and `dora`."""
    targets: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Last parts of the names of the layers with adapters, such as `[qkv, proj, fc1, fc2]`. By
    default, all linear layers, or in networks without linear layers all convolutions with one group
    except the first one."""
    shrink: ShrinkOptions | None = None
    """Removal of the least important ranks of `lora` and `dora` after each epoch."""
    blocks: BlockSelection = "all"
    """Blocks whose layers have adapters: `last_of_stage` (the last block of each stage), or a list
    of numbers from 0, such as `[8, 9, 10, 11]`, in order over all stages. `all` includes layers
    outside of blocks, such as patch merging, which the others leave out."""
    train: tuple[TrainedPart, ...] = ()
    """Parts of the backbone that are trained as well: `norm` (all normalization layers), `position`
    (embeddings of positions), `stem` (the layers before the first stage), `downsample` (layers of
    this name) and `bias` (biases of all layers)."""

    @model_validator(mode="after")
    def _check_kind(self) -> AdapterOptions:
        """Check that options that `svd` does not have are not given."""
        given = sorted(self.model_fields_set & {"dropout", "scale", "shrink"})
        if self.kind == "svd" and given:
            name = {"name": given[0]}
            raise PydanticCustomError(CONFLICT, "kind svd has no {name}; remove it", name)
        return self

"""Task adapters (Agiza et al., CVPR 2024): low-rank adapters per task at the end of each stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from densemtl.adapters.insertion import make_adapters
from densemtl.adapters.options import (
    AdapterKind,
    AdapterOptions,
    BlockSelection,
    DropoutRate,
    Rank,
    ShrinkOptions,
)
from densemtl.adapters.task_streams import (
    StreamLinear,
    StreamTarget,
    add_task_adapters,
    check_block,
    get_layer,
    run_block,
)
from densemtl.config.constraints import PositiveFloat
from densemtl.decoders.base import BackboneFactory, Decoder, HeadFactory, make_heads
from densemtl.errors import ConfigError, ModelError
from densemtl.tasks.base import Task
from densemtl.types import SHARED, Predictions


class TaskAdapters(Decoder):
    r"""Adapters per task in the blocks of a shared transformer, by default the last of each stage.

    Agiza et al., "MTLoRA: A Low-Rank Adaptation Approach for Efficient Multi-Task Learning", CVPR
    2024. The stages pass on a shared stream of features. In the last block of each stage, every
    task has its own stream, which begins with the input of the block. A layer with weight $W$
    computes $W x + s B_t A_t x_t$ for the stream $x_t$ of task $t$, where $x$ is the shared stream;
    the residuals of a stream are its own. The head of a task reads the streams of its task at the
    end of all stages. With `blocks`, streams begin in other blocks.

    The backbone is trained, unless `backbone.adapters` freezes it and adds shared adapters, as in
    MTLoRA. Published code returns the streams of Swin after the following patch merging, at strides
    8, 16, 32 and 32. Here, they have the strides of the stages, 4 to 32.

    Args:
        make_backbone: factory of backbones; called once. The backbone must be a ViT or Swin (V1).
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        kind: `lora` as in MTLoRA; `dora`, which also changes the norms of the rows of $W$; or `svd`
            as in DiTASK, where a task has a weight $W_t$ with other singular values than $W$, and
            its stream is $W_t x_t$.
        rank: rank of $B_t A_t$; for `svd`, the number of knots of the function that scales the
            singular values.
        scale: factor $s$ of `lora` and `dora`, 4 by default; it is not divided by the rank.
        dropout: dropout rate of the input of the adapters of `lora` and `dora`, 0 by default.
        shrink: removal of the least important ranks of `lora` and `dora` after each epoch, such as
            `{keep: 0.95}`.
        filter: `dynamic` filters $A_t x_t$ by a 3x3 filter that is generated from its mean, as in
            TADFormer; all tasks share the generator of a layer. Only for Swin and `lora`.
        targets: layers with adapters: the projection of the attention (`proj`), and the layers
            `fc1` and `fc2` of the MLP.
        blocks: blocks with adapters: `last_of_stage`, as published, `all`, or a list of numbers
            from 0, in order over all stages. The streams of a stage begin in its first such block.
            Later blocks run once per stream, and tasks read the shared stream of a stage without
            such a block.

    Raises:
        ConfigError: if an option does not belong to `kind`.
        ModelError: if the backbone is not a ViT or Swin, or if `svd` is given without a frozen
            backbone.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "task_adapters", "rank": 2},
        ...     backbone={"name": "test_vit", "adapters": {"rank": 8}},
        ...     tasks=["depth", "edge"],
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        kind: AdapterKind = "lora",
        rank: Rank = 4,
        scale: PositiveFloat | None = None,
        dropout: DropoutRate | None = None,
        shrink: ShrinkOptions | None = None,
        filter: Literal["none", "dynamic"] = "none",
        targets: Annotated[tuple[StreamTarget, ...], Field(min_length=1)] = ("proj", "fc1", "fc2"),
        blocks: BlockSelection = "last_of_stage",
    ) -> None:
        super().__init__(tasks)
        self.backbone = make_backbone()
        self.backbone.check_stages()
        given = {"kind": kind, "rank": rank, "scale": scale, "dropout": dropout, "shrink": shrink}
        given = {name: value for name, value in given.items() if value is not None}
        for name in ("scale", "dropout", "shrink") if kind == "svd" else ():
            if name in given:
                raise ConfigError(f"decoder.{name}: kind svd does not have it; remove it")
        if filter == "dynamic" and kind != "lora":
            raise ConfigError(f"decoder.filter: kind {kind} has no filters; remove one of both")
        filter_rank = rank if filter == "dynamic" else None
        self._add_adapters(AdapterOptions.model_validate(given), targets, blocks, filter_rank)
        self.heads = make_heads(make_head, self.backbone.feature_info, tasks)

    def _add_adapters(
        self,
        options: AdapterOptions,
        targets: Sequence[StreamTarget],
        selection: BlockSelection,
        filter_rank: int | None,
    ) -> None:
        """Add the adapters of all tasks to the selected blocks."""
        try:
            stages = self.backbone.select_blocks(selection)
        except ModelError as error:
            raise ModelError(f"decoder.{error}") from None
        blocks = [block for stage in stages for block in stage]
        for block in blocks:
            check_block(block, self.backbone.name)
        if options.kind == "svd" and get_layer(blocks[0], targets[0]).weight.requires_grad:
            raise ModelError(
                "decoder.kind: svd needs a frozen backbone, whose weights are decomposed once; set"
                " backbone.adapters"
            )
        for stage in stages:
            for block in stage:
                adapters = {}
                for target in targets:
                    layer = get_layer(block, target)
                    made = make_adapters(target, layer, options, len(self.task_names))
                    adapters[target] = dict(zip(self.task_names, made, strict=True))
                # The last stage passes on nothing, and adapters of `svd` read no shared stream.
                is_read = stage is not stages[-1] or (
                    block is not stage[-1] and options.kind != "svd"
                )
                add_task_adapters(
                    block,
                    adapters,
                    begins=block is stage[0],
                    shares_output=is_read,
                    filter_rank=filter_rank,
                )

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        pyramids: dict[str, list[Tensor]] = {task: [] for task in self.task_names}
        state = self.backbone.run_stem(image)
        for stage in range(len(self.backbone.feature_info)):
            state, *streams = self.backbone.run_stage_streams(stage, state, run_block)
            streams = streams or [state] * len(self.task_names)
            for task, stream in zip(self.task_names, streams, strict=True):
                pyramids[task].append(stream.feature)
        return Predictions({task: head(pyramids[task]) for task, head in self.heads.items()})

    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters by group.

        Returns:
            {group: parameters}; adapters and head of a task belong to the task, and all other
            parameters of the backbone are shared.
        """
        groups = {task: list(head.parameters()) for task, head in self.heads.items()}
        for module in self.backbone.modules():
            if isinstance(module, StreamLinear):
                for task, adapter in module.task_adapters.items():
                    groups[task] += adapter.parameters()
        owned = {id(each) for parameters in groups.values() for each in parameters}
        shared = [each for each in self.backbone.parameters() if id(each) not in owned]
        return {SHARED: shared, **groups}

"""Blocks of transformers that compute one stream of features per task from a shared stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from densemtl.adapters.dynamic_filter import DynamicFilter
from densemtl.adapters.layers import AdaptedLinear
from densemtl.adapters.low_rank import Adapter, LowRankAdapter
from densemtl.errors import ModelError

StreamTarget = Literal["proj", "fc1", "fc2"]
"""Layer of a block that may have adapters of tasks."""

PARENTS: Mapping[StreamTarget, str] = {"proj": "attn", "fc1": "mlp", "fc2": "mlp"}
"""{layer: its module inside a block}, in the order of execution."""


class StreamLinear(nn.Linear):
    """Linear layer with one adapter per task, which computes a stream of features per task.

    Streams are stacked along the batch: the shared stream, followed by those of the tasks. The
    output of a task is that of the frozen layer for the shared stream, changed by the adapter of
    the task: $y_t = W x + s B_t A_t x_t$ (Agiza et al., CVPR 2024). Adapters that scale singular
    values change the output for the stream of the task. The shared stream is changed by the shared
    adapter.

    Args:
        layer: the layer, whose parameters and shared adapter are used.
        adapters: {task: adapter}.
        begins: whether the input is only the shared stream, from which the tasks begin.
        shares_output: whether the shared stream is read after this layer. If not, the shared
            adapter is removed, as it would not be trained.
        filter_low: filter of $A_t x_t$, which all tasks share, or None; only for adapters of low
            rank.

    Attributes:
        adapter: the shared adapter, or None.
        task_adapters: {task: adapter}.
        filter_low: the filter, or None.
        computes_streams: whether the input is stacked and all streams are computed, as inside
            `run_block`. Otherwise, only the shared stream is computed.
    """

    adapter: Adapter | None

    def __init__(
        self,
        layer: nn.Linear,
        adapters: Mapping[str, Adapter],
        *,
        begins: bool = False,
        shares_output: bool = True,
        filter_low: nn.Module | None = None,
    ) -> None:
        has_bias = layer.bias is not None
        super().__init__(layer.in_features, layer.out_features, has_bias, device="meta")
        self.weight, self.bias = layer.weight, layer.bias
        shared = layer.adapter if isinstance(layer, AdaptedLinear) else None
        self.adapter = shared if shares_output else None
        self.task_adapters = nn.ModuleDict(adapters)
        self.filter_low = filter_low
        self.begins = begins
        self.computes_streams = False

    def forward(self, x: Tensor) -> Tensor:
        """Compute all streams, or only the shared stream.

        Args:
            x: features ((1 + T) B, .., C_in) of the shared stream and of T tasks, or (B, .., C_in)
                if the streams begin here or only the shared stream is computed.

        Returns:
            Features ((1 + T) B, .., C_out) or (B, .., C_out).
        """
        count = len(self.task_adapters)
        is_stacked = self.computes_streams and not self.begins
        shared, *own = split_streams(x, 1 + count) if is_stacked else [x] * (1 + count)
        base = F.linear(shared, self.weight, self.bias)
        outputs = [base if self.adapter is None else self.adapter(self, shared, base)]
        if not self.computes_streams:
            return outputs[0]
        for adapter, stream in zip(self.task_adapters.values(), own, strict=True):
            is_own = adapter.reads_own_stream
            frozen = F.linear(stream, self.weight, self.bias) if is_own else base
            if self.filter_low is not None:
                assert isinstance(adapter, LowRankAdapter)
                outputs.append(base + adapter.compute_change(self, stream, self.filter_low))
            else:
                outputs.append(adapter(self, stream, frozen))
        return torch.cat(outputs)


def split_streams(x: Tensor, count: int) -> list[Tensor]:
    """Split features into their streams.

    Args:
        x: features (count * B, ..).
        count: number of streams.

    Returns:
        Features (B, ..) of each stream.
    """
    return list(torch.unflatten(x, 0, (count, -1)).unbind())


def check_block(block: nn.Module, backbone: str) -> None:
    """Check that a block can compute streams of tasks.

    Args:
        block: a block of the backbone.
        backbone: name of the backbone, for the error message.

    Raises:
        ModelError: if it is not a block of a ViT or of Swin in timm.
    """
    if type(block) not in (Block, SwinTransformerBlock):
        raise ModelError(
            f"decoder task_adapters: {backbone!r} does not consist of the blocks of a ViT or of"
            " Swin (V1) of timm, which adapters of tasks need: choose such a backbone, or another"
            " decoder with backbone.adapters"
        )
    for target, parent in PARENTS.items():
        layer = getattr(block.get_submodule(parent), target, None)
        if type(layer) not in (nn.Linear, AdaptedLinear):
            raise ModelError(
                f"decoder task_adapters: the blocks of {backbone!r} have no linear layer"
                f" {parent}.{target}; choose another backbone"
            )


def get_layer(block: nn.Module, target: StreamTarget) -> nn.Linear:
    """Return a layer of a block that `check_block` accepts.

    Args:
        block: the block.
        target: name of the layer.

    Returns:
        The layer, which may have a shared adapter.
    """
    layer = getattr(block.get_submodule(PARENTS[target]), target)
    assert isinstance(layer, nn.Linear)
    return layer


def add_task_adapters(
    block: nn.Module,
    adapters: Mapping[StreamTarget, Mapping[str, Adapter]],
    *,
    begins: bool = True,
    shares_output: bool = True,
    filter_rank: int | None = None,
) -> None:
    """Add adapters of tasks to the layers of a block.

    Args:
        block: a block that `check_block` accepts, changed in place.
        adapters: {layer: {task: adapter}}.
        begins: whether the streams begin in this block.
        shares_output: whether the shared stream is read after this block.
        filter_rank: rank of the adapters if their features of low rank are filtered by a
            `DynamicFilter`, or None; only for Swin.

    Raises:
        ModelError: if filters are given for a ViT.
    """
    if filter_rank is not None and not isinstance(block, SwinTransformerBlock):
        raise ModelError(
            "decoder.filter: dynamic filters need the windows of Swin (V1): choose such a backbone,"
            " or remove decoder.filter"
        )
    targets = [target for target in PARENTS if target in adapters]
    for target in targets:
        layer = get_layer(block, target)
        is_read = target != targets[-1] and not any(
            adapter.reads_own_stream for adapter in adapters[target].values()
        )
        window: Any = getattr(block, "window_size", None) if target == "proj" else None
        stream_layer = StreamLinear(
            layer,
            adapters[target],
            begins=begins and target == "proj",
            shares_output=shares_output or is_read,
            filter_low=None if filter_rank is None else DynamicFilter(filter_rank, window),
        ).train(layer.training)
        setattr(block.get_submodule(PARENTS[target]), target, stream_layer)


def run_block(block: Any, x: Tensor, count: int, *args: Any, **kwargs: Any) -> tuple[Tensor, int]:
    """Run a module of a stage, which may be a block with adapters of tasks.

    The streams of a stage begin with the input of the first block with adapters of tasks. The
    norms, the attention before its projection, and layers without adapters of tasks are applied to
    all streams; each stream has its own residuals and its own random depth.

    Args:
        block: a module of a Swin or a ViT.
        x: input of the block, (B, H, W, C) of Swin or (B, N, C) of a ViT, or ((1 + T) B, ..) of the
            shared stream and of the tasks.
        count: number of streams of the input, 1 or 1 + T.
        args: further arguments of the block.
        kwargs: further keyword arguments of the block.

    Returns:
        Output, and the number of its streams.
    """
    layers = [each for each in block.modules() if isinstance(each, StreamLinear)]
    if not layers:
        return block(x, *args, **kwargs), count
    for layer in layers:
        layer.computes_streams = True
    try:
        total = 1 + len(layers[0].task_adapters)
        return _run_parts(block, total, x, *args, is_stacked=count > 1, **kwargs), total
    finally:
        for layer in layers:
            layer.computes_streams = False


def _run_parts(
    block: Any, count: int, x: Tensor, *args: Any, is_stacked: bool, **kwargs: Any
) -> Tensor:
    """Run attention and MLP of a block for a number of streams."""
    is_swin = isinstance(block, SwinTransformerBlock)
    normalized = block.norm1(x)
    attended = block._attn(normalized) if is_swin else block.attn(normalized, *args, **kwargs)
    if not is_stacked:
        copies = (count, *[1] * (x.ndim - 1))
        x = x.repeat(copies)
        if not isinstance(block.attn.proj, StreamLinear):
            attended = attended.repeat(copies)
    x = x + block.drop_path1(_scale(block, "ls1", attended))
    output: Tensor = x + block.drop_path2(_scale(block, "ls2", block.mlp(block.norm2(x))))
    return output


def _scale(block: nn.Module, name: str, x: Tensor) -> Tensor:
    """Apply the layer scale of a block, which Swin does not have."""
    layer = getattr(block, name, None)
    scaled: Tensor = x if layer is None else layer(x)
    return scaled

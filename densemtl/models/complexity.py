"""Complexity of a model: FLOP of inference and activation memory of training.

All passes run on the meta device, where tensors have shapes but no memory.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from densemtl.backbones.backbone import Backbone
from densemtl.models.meta_kernels import CachedMetaKernels
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import FUSION, Predictions, Size

TRAINING_BATCH_SIZE = 2
"""Batch normalization needs two values per channel, and a map may be a single pixel."""


def map_parameters_to_groups(model: MultiTaskModel) -> dict[nn.Parameter, str]:
    """Return the group of each parameter; see `Decoder.parameter_groups`.

    Args:
        model: the model.

    Returns:
        {parameter: name of its group}.
    """
    groups = model.parameter_groups()
    return {parameter: group for group, members in groups.items() for parameter in members}


def meta_copy(model: MultiTaskModel) -> MultiTaskModel:
    """Return a copy of a model on the meta device, without copying its weights.

    Args:
        model: the model, on any device.

    Returns:
        The copy, whose tensors have shapes but no values.
    """
    tensors: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    tensors |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, tensors)


@torch.no_grad()
def count_flops(model: MultiTaskModel, size: Size) -> dict[str, int]:
    """Count the FLOP of the prediction of one image, by parameter group.

    Convolutions, matrix products and attention are counted, with 2 FLOP per multiply-add;
    normalization, activations and resizing are not. An operation is assigned to the group of the
    innermost module around it whose parameters all belong to one group, and to "fusion" if there is
    no such module.

    Args:
        model: a model on the meta device; it is set to evaluation mode.
        size: (height, width) of the image in pixels.

    Returns:
        {group: FLOP}, without groups of 0 FLOP.

    Example:
        >>> import densemtl
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=["depth"])
        >>> sorted(count_flops(meta_copy(model), (64, 64)))
        ['depth', 'shared']
    """
    with CachedMetaKernels(), FlopCounterMode(display=False) as counter:
        ledger = _GroupFlopCounter(counter, model)
        with ledger.track():
            model.eval()(torch.empty(1, model.num_channels, *size, device="meta"))
    return {group: flop for group, flop in ledger.group_flops.items() if flop}


@torch.no_grad()
def count_backbone_flops(backbone: Backbone, size: Size) -> int:
    """Count the FLOP of the features of one image, as `count_flops`.

    Args:
        backbone: a feature network on any device; not changed.
        size: (height, width) of the image in pixels.

    Returns:
        FLOP, 2 per multiply-add.

    Example:
        >>> count_backbone_flops(Backbone("test_vit", pretrained=False), (32, 32))
        2889216
    """
    tensors: dict[int, Tensor] = {
        id(tensor): tensor.to("meta") for tensor in (*backbone.parameters(), *backbone.buffers())
    }
    copied = copy.deepcopy(backbone, tensors).eval()
    with CachedMetaKernels(), FlopCounterMode(display=False) as counter:
        copied(torch.empty(1, backbone.in_chans, *size, device="meta"))
    return int(counter.get_total_flops())


class _GroupFlopCounter:
    """Assigns FLOP to the group of the innermost running module that belongs to one group."""

    def __init__(self, counter: FlopCounterMode, model: MultiTaskModel) -> None:
        self.group_flops: dict[str, int] = {}
        self._counter, self._model = counter, model
        self._group_stack = [FUSION]
        self._assigned_flops = 0
        owner = map_parameters_to_groups(model)
        groups = {module: {owner[p] for p in module.parameters()} for module in model.modules()}
        self._module_groups = {
            module: module_groups.pop()
            for module, module_groups in groups.items()
            if len(module_groups) == 1
        }

    @contextmanager
    def track(self) -> Iterator[None]:
        """Assign the FLOP of all forward passes inside this context to groups."""
        with ExitStack() as hooks:
            for module in self._model.modules():
                hooks.callback(module.register_forward_pre_hook(self._on_enter).remove)
                leave = module.register_forward_hook(self._on_exit, always_call=True)
                hooks.callback(leave.remove)
            yield
        self._assign_flops()

    def _on_enter(self, module: nn.Module, _: object) -> None:
        self._assign_flops()
        self._group_stack.append(self._module_groups.get(module, self._group_stack[-1]))

    def _on_exit(self, *_: object) -> None:
        self._assign_flops()
        self._group_stack.pop()

    def _assign_flops(self) -> None:
        """Assign all FLOP since the last call to the group of the innermost running module."""
        total = self._counter.get_total_flops()
        group = self._group_stack[-1]
        self.group_flops[group] = self.group_flops.get(group, 0) + total - self._assigned_flops
        self._assigned_flops = total


@dataclass(frozen=True)
class TrainingForward:
    """Forward pass in training mode, with its autograd graph.

    Attributes:
        image: input images (B, 3, H, W), a leaf of the graph.
        predictions: output of the model.
        activation_bytes: bytes per image that stay in memory until the backward pass.
    """

    image: Tensor
    predictions: Predictions
    activation_bytes: float


def trace_training_forward(model: MultiTaskModel, size: Size) -> TrainingForward:
    """Run the forward pass of a training step in fp32 and measure its activation memory.

    The memory contains all tensors saved for the backward pass, and all logits and auxiliary
    losses. Tensors that share memory are counted once. Parameters, buffers and the gradients of the
    logits, which is all that losses keep, are not counted. The result equals the memory that
    torch's allocator has handed out at this time; the memory of the process is up to 10 % larger.

    Args:
        model: a model on the meta device; it is set to training mode.
        size: (height, width) of the images in pixels.

    Returns:
        The forward pass and its activation memory.

    Example:
        >>> import densemtl
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=["depth"])
        >>> small, large = (
        ...     trace_training_forward(meta_copy(model), size) for size in ((32, 32), (64, 64))
        ... )
        >>> 3 < large.activation_bytes / small.activation_bytes < 5
        True
    """
    image = torch.empty(
        TRAINING_BATCH_SIZE, model.num_channels, *size, device="meta", requires_grad=True
    )
    model_storages = {
        model_tensor.untyped_storage()._cdata
        for model_tensor in (*model.parameters(), *model.buffers())
    }
    storage_bytes: dict[int, int] = {}

    def count_storage(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in model_storages:
            storage_bytes[storage._cdata] = storage.nbytes()
        return tensor

    keep = saved_tensors_hooks(count_storage, lambda tensor: tensor)
    with CachedMetaKernels(), keep, _FusedAttention():
        predictions = model.train()(image, full_size=False)
    for output in predictions.list_outputs():
        count_storage(output)
    return TrainingForward(image, predictions, sum(storage_bytes.values()) / TRAINING_BATCH_SIZE)


class _FusedAttention(TorchFunctionMode):
    """Attention that saves the same tensors for the backward pass as on CPU and GPU.

    Only the meta device would also save the attention weights.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        fusable = len(args) == 3 and options.get("attn_mask") is None
        if func is F.scaled_dot_product_attention and fusable:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **options)

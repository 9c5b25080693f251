"""What a network costs to run and to train, counted without numbers.

The passes are made on torch's meta device, where tensors have shapes but no memory.
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

from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.types import FUSION, Predictions, Size

TRAINING_BATCH_SIZE = 2
"""Batch normalisation needs two values a channel, and a map may be of one pixel."""


def map_parameters_to_groups(model: MultiTaskModel) -> dict[nn.Parameter, str]:
    """{parameter: its group}."""
    groups = model.parameter_groups()
    return {parameter: group for group, members in groups.items() for parameter in members}


def meta_copy(model: MultiTaskModel) -> MultiTaskModel:
    """Return a copy of a model on the meta device; the weights themselves are never copied."""
    tensors: dict[int, Tensor] = {
        id(parameter): nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
        for parameter in model.parameters()
    }
    tensors |= {id(buffer): buffer.to("meta") for buffer in model.buffers()}
    return copy.deepcopy(model, tensors)


@torch.no_grad()
def count_flops(model: MultiTaskModel, size: Size) -> dict[str, int]:
    """FLOP of one image in evaluation, 2 a multiply-add, by parameter group.

    Counted are convolutions, matrix products and attention; normalisation, activations and
    resizing are not. An operation belongs to the group that holds the parameters of the module
    around it; where no module around it is one group's alone, tasks meet, and it is "fusion".

    Args:
        model: on the meta device; left in evaluation mode.
        size: (height, width) of the image.
    """
    with FlopCounterMode(display=False) as counter:
        ledger = _GroupFlopCounter(counter, model)
        with ledger.track():
            model.eval()(torch.empty(1, 3, *size, device="meta"))
    return {group: flop for group, flop in ledger.group_flops.items() if flop}


class _GroupFlopCounter:
    """Books what is counted on the group of the innermost running module that has one."""

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
        total = self._counter.get_total_flops()
        group = self._group_stack[-1]
        self.group_flops[group] = self.group_flops.get(group, 0) + total - self._assigned_flops
        self._assigned_flops = total


@dataclass(frozen=True)
class TrainingForward:
    """A forward pass in training, its graph alive.

    Attributes:
        image: Bx3xHxW, a leaf of the graph.
        predictions: what the model gave for it.
        activation_bytes: bytes an image that stay in memory until the backward pass.
    """

    image: Tensor
    predictions: Predictions
    activation_bytes: float


def trace_training_forward(model: MultiTaskModel, size: Size) -> TrainingForward:
    """Run a training step's forward pass in fp32, and weigh what it leaves behind.

    That is every tensor saved for the backward pass, and the heads' logits. Tensors that share
    memory count once; parameters and buffers do not count, nor do the gradients of the logits,
    which are all that losses keep. It is what torch's allocator has given out at that moment; the
    process holds up to a tenth more.

    Args:
        model: on the meta device; left in training mode.
        size: (height, width) of the images.
    """
    image = torch.empty(TRAINING_BATCH_SIZE, 3, *size, device="meta", requires_grad=True)
    model_storages = {
        model_tensor.untyped_storage()._cdata
        for model_tensor in (*model.parameters(), *model.buffers())
    }
    storage_bytes: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in model_storages:
            storage_bytes[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor), _FusedAttention():
        predictions = model.train()(image, full_size=False)
    for outputs in (predictions.logits, *predictions.aux_logits, predictions.aux_losses):
        for tensor in outputs.values():
            keep(tensor)
    return TrainingForward(image, predictions, sum(storage_bytes.values()) / TRAINING_BATCH_SIZE)


class _FusedAttention(TorchFunctionMode):
    """Attention as on CPU and GPU; the meta device alone would save its weights for backward."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        options = kwargs or {}
        fusable = len(args) == 3 and options.get("attn_mask") is None
        if func is F.scaled_dot_product_attention and fusable:
            return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*args)[0]
        return func(*args, **options)

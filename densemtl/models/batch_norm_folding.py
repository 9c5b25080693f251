"""Folding of batch normalization into the preceding convolutions, for inference."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.layers.common import MultiLevelConv1x1
from densemtl.models.multi_task_model import MultiTaskModel

FUSABLE_CONVOLUTIONS = (nn.Conv2d, MultiLevelConv1x1)
"""Types of convolutions that can be folded; subclasses may compute something else."""

TOLERANCE = 1e-3
"""Maximum difference of logits after folding, relative to their largest absolute value."""


def fuse_conv_bn(model: MultiTaskModel) -> MultiTaskModel:
    """Return a copy of a model with batch normalization folded into convolutions.

    A dry run on a small image finds which normalization reads the output of which convolution. A
    pair is folded if both layers always run together. The logits before and after folding are
    compared on the same image, because other operations may read the output of the convolution.

    Args:
        model: the model, which is not modified.

    Returns:
        The copy, in evaluation mode.

    Raises:
        ModelError: if folding changes the logits.

    Example:
        >>> import densemtl
        >>> model = densemtl.create_model("hard_sharing", backbone="test_resnet", tasks=["depth"])
        >>> folded = fuse_conv_bn(model)
        >>> [
        ...     sum(isinstance(module, nn.BatchNorm2d) for module in net.modules())
        ...     for net in (model, folded)
        ... ]
        [16, 0]
    """
    folded = copy.deepcopy(model).eval()
    backbone = next(module for module in folded.modules() if isinstance(module, Backbone))
    with backbone.dry_run() as image:
        before = folded.decoder(image).logits
        for convolution, norm in _find_conv_bn_pairs(folded.decoder, image):
            _fuse_pair(folded, convolution, norm)
        after = folded.decoder(image).logits
    for task, logits in before.items():
        off, largest = (logits - after[task]).abs().max(), logits.abs().max()
        if not off <= TOLERANCE * largest.clamp(min=1):
            raise ModelError(
                f"batch normalization cannot be folded into convolutions: the logits of {task}"
                f" change by {off:.2g}; set fuse_bn to false"
            )
    return folded


def _find_conv_bn_pairs(
    network: nn.Module, image: Tensor
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Return all pairs of a convolution and a normalization that always run together."""
    producers: dict[int, nn.Module] = {}
    outputs: list[Tensor] = []
    sources: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)
    readers: dict[nn.Module, int] = defaultdict(int)
    runs: dict[nn.Module, int] = defaultdict(int)

    def record_output(module: nn.Module, _: object, output: Tensor) -> None:
        producers[id(output)] = module
        outputs.append(output)  # keeps the tensor alive, so that its id is not used again
        runs[module] += 1

    def record_input(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        producer = producers.get(id(args[0]))
        sources[module].add(producer)
        if producer is not None:
            readers[producer] += 1

    with _register_hooks(network, record_output, record_input):
        network(image)
    return [
        (source, norm)
        for norm, norm_sources in sources.items()
        for source in norm_sources
        if len(norm_sources) == 1
        and isinstance(source, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and readers[source] == runs[source]
    ]


@contextmanager
def _register_hooks(
    network: nn.Module,
    on_convolution: Callable[[nn.Module, object, Tensor], None],
    on_norm: Callable[[nn.Module, tuple[Tensor, ...]], None],
) -> Iterator[None]:
    """Call functions after each convolution and before each normalization inside this context."""
    hooks = [
        module.register_forward_hook(on_convolution)
        if type(module) in FUSABLE_CONVOLUTIONS
        else module.register_forward_pre_hook(on_norm)
        for module in network.modules()
        if type(module) in FUSABLE_CONVOLUTIONS or isinstance(module, nn.BatchNorm2d)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _fuse_pair(model: nn.Module, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a normalization into a convolution and remove it from the model."""
    merged = fuse_conv_bn_eval(convolution, norm)
    convolution.weight, convolution.bias = merged.weight, merged.bias
    # Some normalization layers of timm contain an activation, which must be kept.
    activation = getattr(norm, "act", nn.Identity())
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child is norm:
                setattr(parent, name, activation)

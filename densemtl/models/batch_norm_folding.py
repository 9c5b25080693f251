"""Batch normalisation merged into the convolutions before it, for inference."""

from __future__ import annotations

import copy
from collections import defaultdict

from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.layers.common import MultiLevelConv1x1
from densemtl.models.multi_task_model import MultiTaskModel

FUSABLE_CONVOLUTIONS = (nn.Conv2d, MultiLevelConv1x1)
"""Those that do what their weights say and no more."""

TOLERANCE = 1e-3
"""Largest difference of folded logits, relative to their largest value, that is rounding."""


def fuse_conv_bn(model: MultiTaskModel) -> MultiTaskModel:
    """A copy in evaluation mode whose convolutions do what the normalisation after them did.

    Which convolution feeds which normalisation is seen on a small image: a pair is merged if,
    every time that either runs, it runs with the other. That nothing else reads in between is
    tried out on the same image.

    Raises:
        ModelError: the folded network gives something else.
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
            raise ModelError(f"batch normalisation cannot be folded: {task} changes by {off:.2g}")
    return folded


def _find_conv_bn_pairs(
    network: nn.Module, image: Tensor
) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Convolutions and normalisations that always run one on the other's output."""
    makers: dict[int, nn.Module] = {}
    outputs: list[Tensor] = []
    sources: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)
    readers: dict[nn.Module, int] = defaultdict(int)
    runs: dict[nn.Module, int] = defaultdict(int)

    def made(module: nn.Module, _: object, output: Tensor) -> None:
        makers[id(output)] = module
        outputs.append(output)  # so that no later tensor gets its id
        runs[module] += 1

    def read(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        maker = makers.get(id(args[0]))
        sources[module].add(maker)
        if maker is not None:
            readers[maker] += 1

    hooks = [
        module.register_forward_hook(made)
        if type(module) in FUSABLE_CONVOLUTIONS
        else module.register_forward_pre_hook(read)
        for module in network.modules()
        if type(module) in FUSABLE_CONVOLUTIONS or isinstance(module, nn.BatchNorm2d)
    ]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return [
        (source, norm)
        for norm, norm_sources in sources.items()
        for source in norm_sources
        if len(norm_sources) == 1
        and isinstance(source, nn.Conv2d)
        and isinstance(norm, nn.BatchNorm2d)
        and readers[source] == runs[source]
    ]


def _fuse_pair(model: nn.Module, convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    merged = fuse_conv_bn_eval(convolution, norm)
    convolution.weight, convolution.bias = merged.weight, merged.bias
    # timm has normalisations with an activation inside.
    rest = getattr(norm, "act", nn.Identity())
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if child is norm:
                setattr(parent, name, rest)

"""Insertion of adapters into the layers of a network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import nn

from densemtl.adapters.layers import add_adapter
from densemtl.adapters.low_rank import Adapter, DoraAdapter, Layer, LowRankAdapter
from densemtl.adapters.options import AdapterOptions
from densemtl.adapters.rank_selection import RankSelection
from densemtl.adapters.singular_values import DecomposedWeight, SingularValueAdapter
from densemtl.errors import ModelError


def insert_adapters(
    net: nn.Module,
    options: AdapterOptions,
    run: Callable[[], object],
    blocks: Sequence[nn.Module] | None = None,
) -> None:
    """Replace layers of a network by layers with adapters.

    Only layers that are called have an adapter. Some networks of timm read the weight of a layer
    without calling it, such as the layer `qkv` of Swin V2.

    Args:
        net: the network, changed in place. The names of its parameters do not change.
        options: kind and rank of the adapters, and names of the layers.
        run: function that runs the network once.
        blocks: modules inside which layers have adapters; by default, all layers may have them.

    Raises:
        ModelError: if a target matches no layer.
    """
    layers = find_called_layers(net, run)
    if blocks is not None:
        inside = {module for block in blocks for module in block.modules()}
        layers = {name: layer for name, layer in layers.items() if layer in inside}
    targets = options.targets
    names = _select_default(layers) if targets is None else match_targets(layers, targets)
    for name in names:
        if layers[name].weight.requires_grad:
            raise ModelError(
                f"targets: {name.rpartition('.')[2]!r} is a layer that backbone.adapters.train"
                " trains as well; remove it from one of both"
            )
    for name in names:
        parent, _, child = name.rpartition(".")
        (adapter,) = make_adapters(child, layers[name], options)
        setattr(net.get_submodule(parent), child, add_adapter(layers[name], adapter))


def make_adapters(
    name: str, layer: Layer, options: AdapterOptions, count: int = 1
) -> list[Adapter]:
    """Create adapters of a layer.

    Args:
        name: name of the layer. The outputs of `qkv` are queries, keys and values, whose singular
            values `svd` scales separately.
        layer: the layer. Its weight is decomposed once for all adapters of `svd`, including a
            shared adapter that it already has.
        options: kind and rank of the adapters.
        count: number of adapters.

    Returns:
        The adapters, none of which changes the output of the layer yet.
    """
    if options.kind == "svd":
        decomposition = _find_decomposition(layer) or DecomposedWeight(
            layer.weight, num_parts=3 if name == "qkv" else 1
        )
        return [SingularValueAdapter(layer, options.rank, decomposition) for _ in range(count)]
    make = DoraAdapter if options.kind == "dora" else LowRankAdapter
    shrink = options.shrink
    return [
        make(
            layer,
            options.rank,
            scale=options.scale,
            dropout=options.dropout,
            ranks=None
            if shrink is None
            else RankSelection(options.rank, keep=shrink.keep, decay=shrink.decay),
        )
        for _ in range(count)
    ]


def _find_decomposition(layer: Layer) -> DecomposedWeight | None:
    """Return the decomposed weight of the adapter that a layer has, or None."""
    adapter = getattr(layer, "adapter", None)
    return adapter.decomposition if isinstance(adapter, SingularValueAdapter) else None


def find_called_layers(net: nn.Module, run: Callable[[], object]) -> dict[str, Layer]:
    """Find the layers of a network that may have an adapter.

    Args:
        net: the network.
        run: function that runs the network once.

    Returns:
        {name: layer} of the linear layers and the convolutions with one group that are called, in
        the order of the first calls. The first of all layers, which reads the image, is left out,
        and so are subclasses, which may compute something else.
    """
    names = {
        module: name
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    called: dict[str, Layer] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda module, _: called.update({names[module]: module}))
        for layer in names
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return {name: layer for name, layer in list(called.items())[1:] if _is_plain(layer)}


def _is_plain(layer: Layer) -> bool:
    """Return whether a layer is of PyTorch itself, and a convolution has one group."""
    return type(layer) is nn.Linear or (type(layer) is nn.Conv2d and layer.groups == 1)


def match_targets(names: Collection[str], targets: Sequence[str]) -> list[str]:
    """Return the names whose last parts are targets.

    Args:
        names: names of layers.
        targets: last parts of names, such as `fc1` or `attn.proj`.

    Returns:
        The names of the layers, in order.

    Raises:
        ModelError: if a target matches no name.
    """
    for target in targets:
        if not any(is_match(name, target) for name in names):
            last_parts = sorted({name.rpartition(".")[2] for name in names})
            raise ModelError(
                f"targets: {target!r} matches no linear layer or convolution with one group that"
                f" is called; the layers that may have adapters are {', '.join(last_parts)}"
            )
    return [name for name in names if any(is_match(name, target) for target in targets)]


def is_match(name: str, target: str) -> bool:
    """Return whether the last parts of a name are a target, as in `blocks.0.mlp.fc1` and `fc1`."""
    return f".{name}".endswith(f".{target}")


def _select_default(layers: Mapping[str, Layer]) -> list[str]:
    """Return the names of all linear layers, or of all convolutions.

    Layers that are trained have no adapter.
    """
    linear = [name for name, layer in layers.items() if isinstance(layer, nn.Linear)]
    names = [name for name in linear or layers if not layers[name].weight.requires_grad]
    if not names:
        raise ModelError("kind: no layer of the backbone may have an adapter; choose another one")
    return names

"""Running a timm feature network stage by stage, and what flows between the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.errors import ModelError
from densemtl.layers.common import size_of
from densemtl.types import Size


@dataclass(frozen=True)
class Midway:
    """Where a network stands between two of its stages.

    `dataclasses.replace(midway, feature=...)` puts another map in its place.

    Attributes:
        feature: BxCxHxW map.
        prefix: BxPxC tokens beside the map (class, registers); None where the network has maps.
        image: size of the network's input.
        args: what every block is given after the feature, by position: sizes ...
        kwargs: likewise by name: rotary embeddings, masks, biases ...
    """

    feature: Tensor
    prefix: Tensor | None
    image: Size
    args: Sequence[Any]
    kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class Stages:
    """How a feature network is run stage by stage.

    Attributes:
        names: of each stage's modules inside the network, which run one after the other.
        strides: of each stage's map.
        nhwc: whether the modules' maps are BxHxWxC.
        stem: of the modules before the first stage, where they are no more than a chain; None
            where the network has to run to find out what it does first.
    """

    names: Sequence[Sequence[str]]
    strides: Sequence[int]
    nhwc: bool
    stem: Sequence[str] | None = None

    def modules(self, net: nn.Module, index: int) -> list[nn.Module]:
        """A stage's modules."""
        return [net.get_submodule(name) for name in self.names[index]]

    def start(self, net: nn.Module, image: Tensor) -> Midway:
        """All that the network does with Bx3xHxW before its first stage."""
        size = size_of(image)
        if self.stem is not None:
            for name in self.stem:
                image = net.get_submodule(name)(image)
            return Midway(self._as_map(image, _grid(size, self.strides[0]))[0], None, size, (), {})
        (given, *args), kwargs = _called_with(self.modules(net, 0)[0], lambda: net(image))
        feature, prefix = self._as_map(given, _grid(size, self.strides[0]))
        return Midway(feature, prefix, size, args, kwargs)

    def run(self, net: nn.Module, index: int, midway: Midway) -> Midway:
        """One stage."""
        feature = self._as_given(midway)
        for module in self.modules(net, index):
            feature = module(feature, *midway.args, **midway.kwargs)
        feature, prefix = self._as_map(feature, _grid(midway.image, self.strides[index]))
        return replace(midway, feature=feature, prefix=prefix)

    def run_watched(self, net: nn.Module, index: int, midway: Midway) -> tuple[Tensor, Midway]:
        """As `run`; and the map that enters the stage's last block before it.

        Raises:
            ModelError: the block sees no map.
        """
        *before, last = self.modules(net, index)
        if isinstance(last, nn.Sequential) and not before and midway.prefix is None:
            return self._run_chain(last, index, midway)
        return self._run_hooked(net, index, midway)

    def _run_chain(self, chain: nn.Sequential, index: int, midway: Midway) -> tuple[Tensor, Midway]:
        *before, last = chain
        feature = self._as_given(midway)
        for block in before:
            feature = block(feature, *midway.args, **midway.kwargs)
        leaving = last(feature, *midway.args, **midway.kwargs)
        mapped, prefix = self._as_map(leaving, _grid(midway.image, self.strides[index]))
        after = replace(midway, feature=mapped, prefix=prefix)
        return self._inner_map(feature, [after, midway]), after

    @torch.compiler.disable
    def _run_hooked(self, net: nn.Module, index: int, midway: Midway) -> tuple[Tensor, Midway]:
        seen: list[Tensor] = []
        block = _last_block(self.modules(net, index)[-1])
        watch = block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            leaving = self.run(net, index, midway)
        finally:
            watch.remove()
        return self._inner_map(seen[0], [leaving, midway]), leaving

    def _inner_map(self, feature: Tensor, around: Sequence[Midway]) -> Tensor:
        """What a block inside a stage sees, whose layout need not be the stage's own, as a map.

        The layout is told by the size, which is that of what leaves or enters the stage.
        """
        grids = [size_of(each.feature) for each in around]
        if feature.ndim == 3:
            beside = 0 if around[0].prefix is None else around[0].prefix.shape[1]
            counts = [height * width + beside for height, width in grids]
            if feature.shape[1] in counts:
                return self._as_map(feature, grids[counts.index(feature.shape[1])])[0]
        elif feature.ndim == 4:
            nchw = size_of(feature) in grids
            nhwc = (feature.shape[1], feature.shape[2]) in grids
            if nhwc and (self.nhwc or not nchw):
                return feature.permute(0, 3, 1, 2)
            if nchw:
                return feature
        raise ModelError(f"its last block sees features of shape {tuple(feature.shape)}, no map")

    def _as_map(self, feature: Any, grid: Size) -> tuple[Tensor, Tensor | None]:
        """What a block takes or gives -> (NCHW map, tokens that come before it)."""
        if not isinstance(feature, Tensor) or feature.ndim not in (3, 4):
            raise ModelError("its blocks exchange more than one feature")
        if feature.ndim == 4:
            return (feature.permute(0, 3, 1, 2) if self.nhwc else feature), None
        height, width = grid
        beside = feature.shape[1] - height * width
        if beside < 0:
            raise ModelError(f"{feature.shape[1]} tokens are no map of {grid}")
        tokens = feature[:, beside:].transpose(1, 2)
        return tokens.unflatten(2, grid), feature[:, :beside]

    def _as_given(self, midway: Midway) -> Tensor:
        """The inverse of `_as_map`."""
        if midway.prefix is not None:
            return torch.cat([midway.prefix, midway.feature.flatten(2).transpose(1, 2)], dim=1)
        return midway.feature.permute(0, 2, 3, 1) if self.nhwc else midway.feature


def _last_block(stage: nn.Module) -> nn.Module:
    """The last link of a stage that is a chain of blocks, or has one under the name `blocks`."""
    blocks = getattr(stage, "blocks", stage)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0:
        return blocks[-1]
    return stage


def _grid(image: Size, stride: int) -> Size:
    height, width = image
    return height // stride, width // stride


class _ReachedError(Exception):
    """A forward pass came to where it is to stop."""


@torch.compiler.disable
def _called_with(
    module: nn.Module, run: Callable[[], object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with when `run` runs, which goes no further."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))
        # An exception would unsettle the exporter; it drops by itself what nobody reads.
        if not torch.compiler.is_exporting():
            raise _ReachedError

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _ReachedError:
        pass
    finally:
        hook.remove()
    return calls[0]

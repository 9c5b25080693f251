"""Running a timm feature network stage by stage, and what flows between the stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from densemtl.errors import ModelError
from densemtl.ops.resize import get_size
from densemtl.types import Size


@dataclass(frozen=True)
class StageState:
    """Where a network stands between two of its stages.

    `dataclasses.replace(midway, feature=...)` puts another map in its place.

    Attributes:
        feature: BxCxHxW map.
        prefix_tokens: BxPxC class and register tokens; None if the network works on maps.
        image_size: size of the network's input.
        block_args: what every block is given after the feature, by position: sizes ...
        block_kwargs: likewise by name: rotary embeddings, masks, biases ...
    """

    feature: Tensor
    prefix_tokens: Tensor | None
    image_size: Size
    block_args: Sequence[Any]
    block_kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """How a feature network is run stage by stage.

    Attributes:
        module_names: of each stage's modules inside the network, which run one after the other.
        strides: of each stage's map.
        is_nhwc: whether the modules' maps are BxHxWxC.
        stem_names: of the modules before the first stage, where they are no more than a chain; None
            where the network has to run to find out what it does first.
    """

    module_names: Sequence[Sequence[str]]
    strides: Sequence[int]
    is_nhwc: bool
    stem_names: Sequence[str] | None = None

    def get_modules(self, net: nn.Module, index: int) -> list[nn.Module]:
        """A stage's modules."""
        return [net.get_submodule(name) for name in self.module_names[index]]

    def run_stem(self, net: nn.Module, image: Tensor) -> StageState:
        """All that the network does with Bx3xHxW before its first stage."""
        size = get_size(image)
        if self.stem_names is not None:
            for name in self.stem_names:
                image = net.get_submodule(name)(image)
            return StageState(
                self._to_map(image, _compute_map_size(size, self.strides[0]))[0], None, size, (), {}
            )
        (stage_input, *args), kwargs = _capture_call(
            self.get_modules(net, 0)[0], lambda: net(image)
        )
        feature, prefix = self._to_map(stage_input, _compute_map_size(size, self.strides[0]))
        return StageState(feature, prefix, size, args, kwargs)

    def run_stage(self, net: nn.Module, index: int, state: StageState) -> StageState:
        """One stage."""
        feature = self._from_map(state)
        for module in self.get_modules(net, index):
            feature = module(feature, *state.block_args, **state.block_kwargs)
        feature, prefix = self._to_map(
            feature, _compute_map_size(state.image_size, self.strides[index])
        )
        return replace(state, feature=feature, prefix_tokens=prefix)

    def run_stage_with_last_input(
        self, net: nn.Module, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        """As `run`; and the map that enters the stage's last block before it.

        Raises:
            ModelError: the block sees no map.
        """
        *before, last = self.get_modules(net, index)
        if isinstance(last, nn.Sequential) and not before and state.prefix_tokens is None:
            return self._run_sequential(last, index, state)
        return self._run_with_hook(net, index, state)

    def _run_sequential(
        self, chain: nn.Sequential, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        *before, last = chain
        feature = self._from_map(state)
        for block in before:
            feature = block(feature, *state.block_args, **state.block_kwargs)
        leaving = last(feature, *state.block_args, **state.block_kwargs)
        mapped, prefix = self._to_map(
            leaving, _compute_map_size(state.image_size, self.strides[index])
        )
        after = replace(state, feature=mapped, prefix_tokens=prefix)
        return self._last_input_to_map(feature, [after, state]), after

    @torch.compiler.disable
    def _run_with_hook(
        self, net: nn.Module, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        block_inputs: list[Tensor] = []
        block = _get_last_block(self.get_modules(net, index)[-1])
        watch = block.register_forward_pre_hook(lambda _, inputs: block_inputs.append(inputs[0]))
        try:
            leaving = self.run_stage(net, index, state)
        finally:
            watch.remove()
        return self._last_input_to_map(block_inputs[0], [leaving, state]), leaving

    def _last_input_to_map(self, feature: Tensor, boundary_states: Sequence[StageState]) -> Tensor:
        """What a block inside a stage sees, whose layout need not be the stage's own, as a map.

        The layout is told by the size, which is that of what leaves or enters the stage.
        """
        grids = [get_size(state.feature) for state in boundary_states]
        if feature.ndim == 3:
            beside = (
                0
                if boundary_states[0].prefix_tokens is None
                else boundary_states[0].prefix_tokens.shape[1]
            )
            counts = [height * width + beside for height, width in grids]
            if feature.shape[1] in counts:
                return self._to_map(feature, grids[counts.index(feature.shape[1])])[0]
        elif feature.ndim == 4:
            nchw = get_size(feature) in grids
            nhwc = (feature.shape[1], feature.shape[2]) in grids
            if nhwc and (self.is_nhwc or not nchw):
                return feature.permute(0, 3, 1, 2)
            if nchw:
                return feature
        raise ModelError(f"its last block sees features of shape {tuple(feature.shape)}, no map")

    def _to_map(self, feature: Any, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """What a block takes or gives -> (NCHW map, tokens that come before it)."""
        if not isinstance(feature, Tensor) or feature.ndim not in (3, 4):
            raise ModelError("its blocks exchange more than one feature")
        if feature.ndim == 4:
            return (feature.permute(0, 3, 1, 2) if self.is_nhwc else feature), None
        height, width = map_size
        beside = feature.shape[1] - height * width
        if beside < 0:
            raise ModelError(f"{feature.shape[1]} tokens are no map of {map_size}")
        tokens = feature[:, beside:].transpose(1, 2)
        return tokens.unflatten(2, map_size), feature[:, :beside]

    def _from_map(self, state: StageState) -> Tensor:
        """The inverse of `_as_map`."""
        if state.prefix_tokens is not None:
            return torch.cat([state.prefix_tokens, state.feature.flatten(2).transpose(1, 2)], dim=1)
        return state.feature.permute(0, 2, 3, 1) if self.is_nhwc else state.feature


def _get_last_block(stage: nn.Module) -> nn.Module:
    """The last link of a stage that is a chain of blocks, or has one under the name `blocks`."""
    blocks = getattr(stage, "blocks", stage)
    if isinstance(blocks, nn.Sequential | nn.ModuleList) and len(blocks) > 0:
        return blocks[-1]
    return stage


def _compute_map_size(image: Size, stride: int) -> Size:
    height, width = image
    return height // stride, width // stride


class _StopForwardError(Exception):
    """A forward pass came to where it is to stop."""


@torch.compiler.disable
def _capture_call(
    module: nn.Module, run: Callable[[], object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a module is called with when `run` runs, which goes no further."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))
        # An exception would unsettle the exporter; it drops by itself what nobody reads.
        if not torch.compiler.is_exporting():
            raise _StopForwardError

    hook = module.register_forward_pre_hook(stop, with_kwargs=True)
    try:
        run()
    except _StopForwardError:
        pass
    finally:
        hook.remove()
    return calls[0]

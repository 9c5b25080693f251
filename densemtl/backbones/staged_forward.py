"""Stage-wise execution of a timm feature network, and the state that is passed between stages."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn

from densemtl.backbones.stage_blocks import list_blocks, list_chain
from densemtl.errors import ModelError
from densemtl.ops.resize import get_size
from densemtl.types import Size

_Function = TypeVar("_Function", bound=Callable[..., Any])


RunBlock = Callable[..., tuple[Tensor, int]]
"""Function that runs a module of a stage. It is called with the module, its input, the number of
streams that are stacked along the batch of the input, and further arguments of the module. It
returns the output and the number of its streams."""


class _Decorator(Protocol):
    def __call__(self, function: _Function, /) -> _Function: ...


_disable_compile: _Decorator = torch.compiler.disable


@dataclass(frozen=True)
class StageState:
    """State of a network between two of its stages.

    `dataclasses.replace(state, feature=...)` exchanges the feature map.

    Attributes:
        feature: map (B, C, H, W).
        prefix_tokens: class and register tokens (B, P, C); None if the network works on maps.
        image_size: (height, width) of the input of the network.
        block_args: positional arguments of every block after the feature, such as sizes.
        block_kwargs: keyword arguments of every block, such as rotary embeddings and masks.
    """

    feature: Tensor
    prefix_tokens: Tensor | None
    image_size: Size
    block_args: Sequence[Any]
    block_kwargs: Mapping[str, Any]


@dataclass(frozen=True)
class StagePlan:
    """Plan of how a feature network is run stage by stage.

    Attributes:
        module_names: names of the modules of each stage, which run one after the other.
        strides: stride of the map of each stage.
        is_nhwc: whether the modules work on maps (B, H, W, C).
        stem_names: names of the modules before the first stage if they form a simple chain. If
            None, the stem is run by a forward pass of the network that is stopped at the first
            stage.
    """

    module_names: Sequence[Sequence[str]]
    strides: Sequence[int]
    is_nhwc: bool
    stem_names: Sequence[str] | None = None

    def get_modules(self, net: nn.Module, index: int) -> list[nn.Module]:
        """Return the modules of a stage.

        Args:
            net: the feature network.
            index: index of the stage.

        Returns:
            The modules in order of execution.
        """
        return [net.get_submodule(name) for name in self.module_names[index]]

    def run_stem(self, net: nn.Module, image: Tensor) -> StageState:
        """Run all layers before the first stage.

        Args:
            net: the feature network.
            image: normalized images (B, 3, H, W).

        Returns:
            The input of stage 0.

        Raises:
            ModelError: if the input of the first stage is not a feature map.
        """
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
        """Run a single stage.

        Args:
            net: the feature network.
            index: index of the stage.
            state: output of the previous stage, or of the stem.

        Returns:
            The output of the stage.

        Raises:
            ModelError: if the output of the stage is not a feature map.
        """
        feature = self._from_map(state)
        for module in self.get_modules(net, index):
            feature = module(feature, *state.block_args, **state.block_kwargs)
        feature, prefix = self._to_map(
            feature, _compute_map_size(state.image_size, self.strides[index])
        )
        return replace(state, feature=feature, prefix_tokens=prefix)

    def run_stage_blocks(self, net: nn.Module, index: int, state: StageState) -> list[StageState]:
        """Run a single stage block by block, if all blocks keep the size of the map.

        Args:
            net: the feature network.
            index: index of the stage.
            state: output of the previous stage, or of the stem.

        Returns:
            The output of each block; the last one is that of the stage.

        Raises:
            ModelError: if the output of a block is not a feature map.
        """
        feature, states = self._from_map(state), []
        map_size = _compute_map_size(state.image_size, self.strides[index])
        for module in self.get_modules(net, index):
            for block in module if isinstance(module, nn.Sequential) else (module,):
                feature = block(feature, *state.block_args, **state.block_kwargs)
                each, prefix = self._to_map(feature, map_size)
                states.append(replace(state, feature=each, prefix_tokens=prefix))
        return states

    def run_stage_with_last_input(
        self, net: nn.Module, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        """Run a single stage and also return the input of its last block.

        Args:
            net: the feature network.
            index: index of the stage.
            state: output of the previous stage, or of the stem.

        Returns:
            The input of the last block as a map (B, C, H, W), and the output of the stage.

        Raises:
            ModelError: if the input of the last block is not a feature map.
        """
        *before, last = self.get_modules(net, index)
        if isinstance(last, nn.Sequential) and not before and state.prefix_tokens is None:
            return self._run_sequential(last, index, state)
        return self._run_with_hook(net, index, state)

    def run_stage_streams(
        self, net: nn.Module, index: int, state: StageState, run_block: RunBlock
    ) -> list[StageState]:
        """Run a single stage whose blocks may compute several streams.

        Args:
            net: the feature network, whose stages are chains of transformer blocks.
            index: index of the stage.
            state: output of the previous stage, or of the stem.
            run_block: function that runs a module of the stage.

        Returns:
            The output of the stage in each stream; only one if no block computes several.

        Raises:
            ModelError: if an output is not a feature map.
        """
        feature, count = self._from_map(state), 1
        for module in list_chain(self.get_modules(net, index)):
            feature, count = run_block(
                module, feature, count, *state.block_args, **state.block_kwargs
            )
        map_size = _compute_map_size(state.image_size, self.strides[index])
        maps = [
            self._to_map(stream, map_size)
            for stream in torch.unflatten(feature, 0, (count, -1)).unbind()
        ]
        return [replace(state, feature=each, prefix_tokens=prefix) for each, prefix in maps]

    def _run_sequential(
        self, chain: nn.Sequential, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        *before, last = chain
        feature = self._from_map(state)
        for block in before:
            feature = block(feature, *state.block_args, **state.block_kwargs)
        output = last(feature, *state.block_args, **state.block_kwargs)
        output_map, prefix = self._to_map(
            output, _compute_map_size(state.image_size, self.strides[index])
        )
        next_state = replace(state, feature=output_map, prefix_tokens=prefix)
        return self._last_input_to_map(feature, [next_state, state]), next_state

    @_disable_compile
    def _run_with_hook(
        self, net: nn.Module, index: int, state: StageState
    ) -> tuple[Tensor, StageState]:
        block_inputs: list[Tensor] = []
        last = self.get_modules(net, index)[-1]
        block = (list_blocks([last]) or [last])[-1]
        hook = block.register_forward_pre_hook(lambda _, inputs: block_inputs.append(inputs[0]))
        try:
            next_state = self.run_stage(net, index, state)
        finally:
            hook.remove()
        return self._last_input_to_map(block_inputs[0], [next_state, state]), next_state

    def _last_input_to_map(self, feature: Tensor, boundary_states: Sequence[StageState]) -> Tensor:
        """Return the input of a block inside a stage as a map (B, C, H, W).

        The layout inside a stage may differ from the layout between stages. It is inferred from the
        size, which equals that of the output or the input of the stage.
        """
        grids = [get_size(state.feature) for state in boundary_states]
        if feature.ndim == 3:
            num_prefix_tokens = (
                0
                if boundary_states[0].prefix_tokens is None
                else boundary_states[0].prefix_tokens.shape[1]
            )
            counts = [height * width + num_prefix_tokens for height, width in grids]
            if feature.shape[1] in counts:
                return self._to_map(feature, grids[counts.index(feature.shape[1])])[0]
        elif feature.ndim == 4:
            nchw = get_size(feature) in grids
            nhwc = (feature.shape[1], feature.shape[2]) in grids
            if nhwc and (self.is_nhwc or not nchw):
                return feature.permute(0, 3, 1, 2)
            if nchw:
                return feature
        raise ModelError(
            f"the input of its last block has shape {tuple(feature.shape)}, which is not a map"
        )

    def _to_map(self, feature: Any, map_size: Size) -> tuple[Tensor, Tensor | None]:
        """Convert an input or output of a block to a map (B, C, H, W) and its prefix tokens."""
        if not isinstance(feature, Tensor) or feature.ndim not in (3, 4):
            raise ModelError("its blocks pass more than one feature map")
        if feature.ndim == 4:
            return (feature.permute(0, 3, 1, 2) if self.is_nhwc else feature), None
        height, width = map_size
        num_prefix_tokens = feature.shape[1] - height * width
        if num_prefix_tokens < 0:
            raise ModelError(f"{feature.shape[1]} tokens do not form a map of size {map_size}")
        tokens = feature[:, num_prefix_tokens:].transpose(1, 2)
        return torch.unflatten(tokens, 2, map_size), feature[:, :num_prefix_tokens]

    def _from_map(self, state: StageState) -> Tensor:
        """Return the input of a block in its own layout, the inverse of `_to_map`."""
        if state.prefix_tokens is not None:
            return torch.cat([state.prefix_tokens, state.feature.flatten(2).transpose(1, 2)], dim=1)
        return state.feature.permute(0, 2, 3, 1) if self.is_nhwc else state.feature


def _compute_map_size(image: Size, stride: int) -> Size:
    height, width = image
    return height // stride, width // stride


class _StopForwardError(Exception):
    """Exception that stops a forward pass at a given module."""


@_disable_compile
def _capture_call(
    module: nn.Module, run: Callable[[], object]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments with which `run` calls a module, and stop `run` there."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def stop(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((args, kwargs))
        # The exporter cannot handle the exception, and removes unused computations by itself.
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

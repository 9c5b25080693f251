"""Base class of backbones that can be run stage by stage."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from torch import Tensor, nn

from densemtl.adapters.options import BlockSelection
from densemtl.backbones.stage_blocks import list_blocks
from densemtl.backbones.stage_discovery import find_stages
from densemtl.backbones.staged_forward import RunBlock, StagePlan, StageState
from densemtl.errors import ModelError, shorten_error
from densemtl.types import FeatureInfo

MapRecorder = Callable[[int, Tensor], None]
"""Function that receives the index of a level and its map (B, C_l, H_l, W_l)."""


class StagedNetwork(nn.Module):
    """Feature network that is run as a whole or stage by stage.

    Attributes:
        name: name of the timm model.
        net: the feature network.
        feature_info: channels and strides of the maps that `forward` returns.
    """

    name: str
    net: nn.Module
    feature_info: FeatureInfo
    _level_names: list[str]
    _stage_plan: StagePlan | None = None
    _recorder: MapRecorder | None = None

    @abstractmethod
    def dry_run(self) -> AbstractContextManager[Tensor]:
        """Provide a small random image for a dry run without side effects.

        Returns:
            A context that yields a random image (1, C, H, W).
        """

    @abstractmethod
    def _check_size(self, image: Tensor) -> None:
        """Raise an error if the network is built for images of another size."""

    @contextmanager
    def recording_maps(self, recorder: MapRecorder) -> Iterator[None]:
        """Pass the map of each level to a function when it is computed, whole or stage by stage.

        Args:
            recorder: function that receives each map with its graph.

        Yields:
            Nothing.
        """
        self._recorder = recorder
        try:
            yield
        finally:
            self._recorder = None

    def record_map(self, index: int, feature: Tensor) -> Tensor:
        """Pass a map to the recorder if there is one.

        Args:
            index: index of the level.
            feature: map (B, C_l, H_l, W_l).

        Returns:
            The map.
        """
        if self._recorder is not None:
            self._recorder(index, feature)
        return feature

    def check_stages(self) -> None:
        """Check that the model can be run stage by stage with the same results as `forward`.

        The check runs the model once on a small random image; later calls return immediately.
        Decoders that run stages call it in their constructors, otherwise the first stage-wise run
        does.

        Raises:
            ModelError: if the model cannot be run stage by stage.
        """
        if self._stage_plan is not None:
            return
        with self.dry_run() as image:
            try:
                maps = self(image)
                self._stage_plan = find_stages(
                    self.net, self._level_names, self.feature_info, image, maps
                )
            except ModelError as error:
                raise self._make_stages_error(str(error)) from None
            except Exception as error:  # models that reject small images raise any exception
                raise self._make_stages_error(f"on a small image {shorten_error(error)}") from error

    def run_stem(self, image: Tensor) -> StageState:
        """Run all layers before the first stage.

        Args:
            image: normalized RGB images (B, 3, H, W); H and W are divisible by `size_divisor`.

        Returns:
            The input of stage 0.

        Raises:
            ModelError: if the model cannot be run stage by stage, or is built for another image
                size.
        """
        self._check_size(image)
        return self._get_stage_plan().run_stem(self.net, image)

    def run_stage(self, index: int, state: StageState) -> StageState:
        """Run a single stage, so that networks can exchange features between stages.

        `run_stem` followed by all stages in order returns the same maps as `forward`.

        Args:
            index: index of the stage, 0 .. len(feature_info) - 1.
            state: output of the previous stage, or of the stem for stage 0.

        Returns:
            The output of the stage.

        Raises:
            ModelError: if the model cannot be run stage by stage.

        Example:
            >>> import torch
            >>> from densemtl.backbones.backbone import Backbone
            >>> backbone = Backbone("test_vit", pretrained=False).eval()
            >>> image = torch.randn(1, 3, 32, 48)
            >>> state = backbone.run_stem(image)
            >>> for index in range(len(backbone.feature_info)):
            ...     state = backbone.run_stage(index, state)
            >>> torch.equal(state.feature, backbone(image)[-1])
            True
        """
        result = self._get_stage_plan().run_stage(self.net, index, state)
        self.record_map(index, result.feature)
        return result

    def run_stage_blocks(self, index: int, state: StageState) -> list[StageState]:
        """Run a single stage and return the output of each of its blocks.

        Args:
            index: index of the stage, whose blocks all have maps of the same size.
            state: output of the previous stage, or of the stem for stage 0.

        Returns:
            The outputs in order; the last one is that of the stage.

        Raises:
            ModelError: if the model cannot be run stage by stage, or the output of a block is not a
                feature map.
        """
        try:
            states = self._get_stage_plan().run_stage_blocks(self.net, index, state)
        except ModelError as error:
            raise ModelError(f"backbone {self.name!r}, stage {index}: {error}") from None
        self.record_map(index, states[-1].feature)
        return states

    def run_stage_with_last_input(self, index: int, state: StageState) -> tuple[Tensor, StageState]:
        """Run a single stage and also return the input of its last block.

        Args:
            index: index of the stage.
            state: output of the previous stage, or of the stem for stage 0.

        Returns:
            The input of the last block as a map (B, C, H, W), and the output of the stage.

        Raises:
            ModelError: if the model cannot be run stage by stage, or if the input of its last block
                is not a feature map.
        """
        try:
            plan = self._get_stage_plan()
            last_input, result = plan.run_stage_with_last_input(self.net, index, state)
        except ModelError as error:
            raise ModelError(f"backbone {self.name!r}, stage {index}: {error}") from None
        self.record_map(index, result.feature)
        return last_input, result

    def run_stage_streams(
        self, index: int, state: StageState, run_block: RunBlock
    ) -> list[StageState]:
        """Run a single stage whose blocks may compute several streams.

        Args:
            index: index of the stage.
            state: output of the previous stage, or of the stem for stage 0.
            run_block: function that runs a module of the stage.

        Returns:
            The output of the stage in each stream; only one if no block computes several.

        Raises:
            ModelError: if the model cannot be run stage by stage.
        """
        streams = self._get_stage_plan().run_stage_streams(self.net, index, state, run_block)
        for stream in streams:
            self.record_map(index, stream.feature)
        return streams

    def select_blocks(self, blocks: BlockSelection) -> list[list[nn.Module]]:
        """Select blocks of the stages.

        Args:
            blocks: all blocks, the last one of each stage, or numbers of blocks; the blocks of all
                stages are numbered in order, beginning with 0.

        Returns:
            The selected blocks of each stage, in order.

        Raises:
            ModelError: if the model cannot be run stage by stage, or has no block of a number.
        """
        try:
            stages = [
                list_blocks(self.get_stage_modules(stage))
                for stage in range(len(self.feature_info))
            ]
        except ModelError as error:
            raise ModelError(f"blocks: {error}") from None
        if blocks == "all":
            return stages
        if blocks == "last_of_stage":
            return [stage[-1:] for stage in stages]
        count = sum(len(stage) for stage in stages)
        for number in blocks:
            if number >= count:
                raise ModelError(
                    f"blocks: {self.name!r} has {count} blocks, from 0 to {count - 1}; remove"
                    f" {number}"
                )
        numbers = iter(range(count))
        return [[block for block in stage if next(numbers) in blocks] for stage in stages]

    def get_stage_modules(self, index: int) -> list[nn.Module]:
        """Return the modules that `run_stage` runs one after the other.

        Args:
            index: index of the stage.

        Returns:
            The modules in order of execution.

        Raises:
            ModelError: if the model cannot be run stage by stage.
        """
        return self._get_stage_plan().get_modules(self.net, index)

    def _get_stage_plan(self) -> StagePlan:
        self.check_stages()
        assert self._stage_plan is not None
        return self._stage_plan

    def _make_stages_error(self, reason: str) -> ModelError:
        return ModelError(
            f"backbone {self.name!r} cannot be run stage by stage: {reason}; choose e.g. a ResNet,"
            " ConvNeXt, EfficientNet, Swin or ViT"
        )

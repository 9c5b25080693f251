"""Base classes of decoders, which map an image to the logits of all tasks.

A decoder gets a factory of backbones and creates as many as it needs. Hard sharing and
decoder-focused methods create one backbone and read its feature pyramid (`SharedBackboneDecoder`),
also without any exchange between tasks (`IndependentHeadsDecoder`).
Encoder-focused methods create one backbone per task, or run one backbone stage by stage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from densemtl.backbones.backbone import Backbone
from densemtl.layers.gradient_cut import SharedFeatures
from densemtl.tasks.base import Task
from densemtl.types import CachedFeatures, FeatureInfo, ModelInput, Predictions, SharingWeights

BackboneFactory = Callable[[], Backbone]
"""Function that creates a new backbone."""

StreamRecorder = Callable[[int, int, Tensor], None]
"""Function that receives the indices of a stream and of a level, and the map (B, C, H, W)."""

HeadFactory = Callable[[FeatureInfo, int], nn.Module]
"""Function that creates a head from the channels and strides of its input, and its output channels.

A head maps a list of maps (B, C_l, H_l, W_l) to logits at the size of the finest level it reads.
"""


def make_heads(
    make_head: HeadFactory, feature_info: FeatureInfo, tasks: Sequence[Task]
) -> nn.ModuleDict:
    """Create one head per task.

    Args:
        make_head: factory of heads.
        feature_info: channels and strides of the features that every head reads.
        tasks: tasks that need a head.

    Returns:
        {task: head}.
    """
    return nn.ModuleDict({task.name: make_head(feature_info, task.channels) for task in tasks})


class Decoder(nn.Module, ABC):
    """Base class of decoders.

    The constructors of subclasses take `(make_backbone, make_head, tasks)`, optionally
    `auxiliary_tasks`, and keyword-only options, which users set in the configuration.

    Args:
        tasks: tasks to predict.

    Attributes:
        task_names: names of the tasks.
        num_streams: number of streams of features, each of which `distill` compares with one
            teacher; 0 if it compares the maps of the backbone with all teachers.
    """

    num_streams: int = 0
    _stream_recorder: StreamRecorder | None = None

    def __init__(self, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.task_names = tuple(task.name for task in tasks)

    @abstractmethod
    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features, and auxiliary logits and losses
            of the decoder.
        """

    @abstractmethod
    def parameter_groups(self) -> Mapping[str, list[nn.Parameter]]:
        """Return all parameters of the decoder by group; each parameter is in one group.

        Returns:
            {group: parameters}. The groups are "shared", one group per task under the name of the
            task, and "fusion" for parameters that exchange features between tasks.
        """

    @contextmanager
    def recording_streams(self, recorder: StreamRecorder) -> Iterator[None]:
        """Pass the maps of the streams to a function when they are computed.

        Args:
            recorder: function that receives each map with its graph.

        Yields:
            Nothing.
        """
        self._stream_recorder = recorder
        try:
            yield
        finally:
            self._stream_recorder = None

    def record_stream(self, stream: int, level: int, feature: Tensor) -> None:
        """Pass the map of a stream to the recorder if there is one.

        Args:
            stream: index of the stream.
            level: index of the level of the backbone that the map belongs to.
            feature: map (B, C, H, W) of the size and width of this level.
        """
        if self._stream_recorder is not None:
            self._stream_recorder(stream, level, feature)

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the learned weights by which tasks share features.

        It is called in evaluation mode, without gradients, between training steps.

        Args:
            image: images as for `forward`, on which gates and masks are measured. Decoders whose
                weights do not depend on the image may ignore it.

        Returns:
            {location in the network: weights}; empty if the decoder learns no such weights.
        """
        return {}


class SharedBackboneDecoder(Decoder):
    """Base class of decoders that read the feature pyramid of one shared backbone.

    Args:
        make_backbone: factory of backbones; called once.
        tasks: tasks to predict.

    Attributes:
        reads_image_once: whether the pyramid is that of the image itself, and can be cached.
    """

    reads_image_once: bool = True

    def __init__(self, make_backbone: BackboneFactory, tasks: Sequence[Task]) -> None:
        super().__init__(tasks)
        self.backbone = make_backbone()
        self.shared_features = SharedFeatures()

    def forward(self, image: ModelInput) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone;
                or the features of the backbone for such images.

        Returns:
            Logits of all tasks at the resolution of the features, and auxiliary logits and losses
            of the decoder.
        """
        return self.decode_features(self.compute_shared_features(image))

    def compute_shared_features(self, image: ModelInput) -> list[Tensor]:
        """Compute the maps that all tasks read.

        Args:
            image: as for `forward`.

        Returns:
            Maps (B, C_l, H_l, W_l) of the levels, finest first, which passed `shared_features`.
        """
        features = image.maps if isinstance(image, CachedFeatures) else self.backbone(image)
        maps: list[Tensor] = self.shared_features(features)
        return maps

    @abstractmethod
    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict all tasks from the feature pyramid.

        Args:
            features: maps (B, C_l, H_l, W_l) of the levels, finest first.

        Returns:
            Logits of all tasks at the resolution of the features, and auxiliary logits and losses
            of the decoder.
        """


class IndependentHeadsDecoder(SharedBackboneDecoder):
    """Base class of decoders whose tasks read the shared features without affecting each other.

    Subclasses implement `decode_task`. `train.sequential_heads` trains one task after the other.
    """

    @abstractmethod
    def decode_task(self, task: str, features: list[Tensor]) -> list[Tensor]:
        """Predict one task.

        Args:
            task: name of the task.
            features: the maps that `compute_shared_features` returns.

        Returns:
            The logits of the task at the resolution of the features, followed by its auxiliary
            logits, as many as those of every other task.
        """

    def decode_features(self, features: list[Tensor]) -> Predictions:
        """Predict all tasks.

        Args:
            features: the maps that `compute_shared_features` returns.

        Returns:
            Logits and auxiliary logits of all tasks at the resolution of the features.
        """
        return join_outputs({task: self.decode_task(task, features) for task in self.task_names})


def join_outputs(outputs: Mapping[str, Sequence[Tensor]]) -> Predictions:
    """Join the outputs of tasks that are decoded independently.

    Args:
        outputs: {task: logits, followed by auxiliary logits}.

    Returns:
        The predictions of these tasks.
    """
    final, *auxiliary = (
        dict(zip(outputs, logits, strict=True)) for logits in zip(*outputs.values(), strict=True)
    )
    return Predictions(final, auxiliary)

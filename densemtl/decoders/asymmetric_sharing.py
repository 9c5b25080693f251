"""Asymmetric sharing (Tang et al., RecSys 2020, "Progressive Layered Extraction", Fig. 1b)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.config.constraints import UnitInterval
from densemtl.decoders.base import BackboneFactory, HeadFactory
from densemtl.decoders.task_networks import PerTaskNetworks, split_alpha
from densemtl.errors import ConfigError, suggest
from densemtl.layers.channel_mixing import PyramidMixer
from densemtl.tasks.base import Task
from densemtl.types import Predictions, SharingWeights

Sources = Mapping[str, Sequence[str]]
"""{reader: tasks whose backbones its head reads in addition to its own backbone}."""


class AsymmetricSharing(PerTaskNetworks):
    """Asymmetric sharing: one network per task; the heads of some tasks read other tasks' features.

    Tang et al., "Progressive Layered Extraction (PLE)", RecSys 2020, Fig. 1b. A reader is a task
    whose head reads the backbones of other tasks in addition to its own. At each level of the
    feature pyramid, a 1x1 convolution mixes the maps that the reader reads, so that any backbone
    can be used. The loss of a reader also trains the backbones that it reads. The head of every
    other task reads only its own backbone.

    Args:
        make_backbone: factory of backbones; called once per task.
        make_head: factory of heads; called once per task.
        tasks: tasks to predict.
        sources: {reader: tasks whose backbones it reads}. By default, the last task reads all
            other tasks, as the second of two tasks does in the figure of the paper; only then does
            the order of tasks matter.
        alpha: initial weight of a reader's own features. The features of its sources have equal
            parts of the rest. With 1, the decoder starts as separate single-task networks.

    Raises:
        ConfigError: if `sources` contains an unknown task, a task twice, or the reader itself.

    Example:
        >>> import torch
        >>> import densemtl
        >>> model = densemtl.create_model(
        ...     {"name": "asymmetric_sharing", "sources": {"depth": ["edge"]}},
        ...     backbone="test_resnet",
        ...     tasks=["depth", "edge"],
        ... )
        >>> predictions = model(torch.zeros(2, 3, 64, 64))
        >>> {task: tuple(logits.shape) for task, logits in predictions.logits.items()}
        {'depth': (2, 1, 64, 64), 'edge': (2, 1, 64, 64)}
    """

    def __init__(
        self,
        make_backbone: BackboneFactory,
        make_head: HeadFactory,
        tasks: Sequence[Task],
        *,
        sources: dict[str, list[str]] | None = None,
        alpha: UnitInterval = 0.9,
    ) -> None:
        *others, last = names = [task.name for task in tasks]
        checked = _validate_sources({last: others} if sources is None else sources, names)
        super().__init__(make_backbone, make_head, tasks)
        self.sources = checked
        self.mixers = nn.ModuleDict()
        for reader, read in self.sources.items():
            own_weight, other_weight = split_alpha(alpha, 1 + len(read))
            self.mixers[reader] = PyramidMixer(
                self.feature_info.channels, [own_weight, *(other_weight for _ in read)]
            )

    def forward(self, image: Tensor) -> Predictions:
        """Predict all tasks.

        Args:
            image: normalized RGB images (B, 3, H, W), padded to the `size_divisor` of the backbone.

        Returns:
            Logits of all tasks at the resolution of the features.
        """
        pyramids = {task: backbone(image) for task, backbone in self.backbones.items()}
        mixed = dict(pyramids)
        for reader, mixer in self.mixers.items():
            mixed[reader] = mixer([pyramids[task] for task in (reader, *self.sources[reader])])
        return Predictions({task: head(mixed[task]) for task, head in self.heads.items()})

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Return the weights of each reader's mixer at each level.

        Args:
            image: not used.

        Returns:
            {"level N": Frobenius norm of the convolution weights of every task that each reader
            reads, relative to the norm of the identity}.
        """
        rows = [self._compute_mixing_weights(reader) for reader in self.sources]
        levels = torch.stack(rows, dim=1) if rows else ()
        return {
            f"level {level}": SharingWeights(tuple(self.sources), self.task_names, weights)
            for level, weights in enumerate(levels, start=1)
        }

    def _compute_mixing_weights(self, reader: str) -> Tensor:
        """Return weights of shape (levels, tasks), 0 for tasks that the reader does not read."""
        mixer = self.mixers[reader]
        assert isinstance(mixer, PyramidMixer)
        norms = mixer.compute_block_norms()
        columns = [self.task_names.index(task) for task in (reader, *self.sources[reader])]
        weights = norms.new_zeros(len(norms), len(self.task_names))
        weights[:, columns] = norms
        return weights

    def fusion_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the mixers of all readers."""
        return list(self.mixers.parameters())


def _validate_sources(sources_by_task: Sources, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the sources of all tasks that have any, or raise all errors."""
    errors = list(_find_source_errors(sources_by_task, tasks))
    if errors:
        raise ConfigError("\n".join(errors))
    return {reader: tuple(sources) for reader, sources in sources_by_task.items() if sources}


def _find_source_errors(sources_by_task: Sources, tasks: Sequence[str]) -> Iterator[str]:
    """Yield one error message per invalid source."""
    for reader, sources in sources_by_task.items():
        if reader not in tasks:
            yield f"decoder.sources: no task {reader!r}, {suggest(reader, tasks)}"
        for index, source in enumerate(sources):
            where = f"decoder.sources.{reader}.{index}"
            if source not in tasks:
                yield f"{where}: no task {source!r}, {suggest(source, tasks)}"
            elif source == reader:
                yield f"{where}: a task always reads its own backbone; remove {source!r}"
            elif source in sources[:index]:
                yield f"{where}: {source!r} is named twice"

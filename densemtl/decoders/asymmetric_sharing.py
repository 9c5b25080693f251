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
"""{reader: the tasks whose encoders it reads besides its own}."""


class AsymmetricSharing(PerTaskNetworks):
    """A network a task, of which some tasks' heads read other tasks' backbones besides their own.

    A reader joins the pyramids level by level with a 1x1, so that any backbone will do; its loss
    trains the backbones that it reads. The other tasks' heads read their own backbone alone.

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        sources: {reader: the tasks that it reads}. If not given, the last task reads all others, as
            the last of two does in the paper's figure: only then does the order of tasks matter.
        alpha: share of its own features that a reader starts with; those that it reads have equal
            parts of the rest. At 1 the start is one network a task.

    Raises:
        ConfigError: `sources` names what is no task, one twice, or the reader itself.
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
        """Bx3xHxW normalised image -> logits at feature size."""
        pyramids = {task: backbone(image) for task, backbone in self.backbones.items()}
        read = dict(pyramids)
        for reader, join in self.mixers.items():
            read[reader] = join([pyramids[task] for task in (reader, *self.sources[reader])])
        return Predictions({task: head(read[task]) for task, head in self.heads.items()})

    def sharing_weights(self, image: Tensor) -> Mapping[str, SharingWeights]:
        """Norm of each join's block for every task that it reads, over that of the identity."""
        rows = [self._compute_mixing_weights(reader) for reader in self.sources]
        levels = torch.stack(rows, dim=1) if rows else ()
        return {
            f"level {level}": SharingWeights(tuple(self.sources), self.task_names, weights)
            for level, weights in enumerate(levels, start=1)
        }

    def _compute_mixing_weights(self, reader: str) -> Tensor:
        """Levels x tasks, 0 where a task is not read."""
        join = self.mixers[reader]
        assert isinstance(join, PyramidMixer)
        norms = join.compute_block_norms()
        columns = [self.task_names.index(task) for task in (reader, *self.sources[reader])]
        weights = norms.new_zeros(len(norms), len(self.task_names))
        weights[:, columns] = norms
        return weights

    def fusion_parameters(self) -> list[nn.Parameter]:
        """The readers' joins."""
        return list(self.mixers.parameters())


def _validate_sources(sources_by_task: Sources, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Readers that read anyone."""
    errors = list(_find_source_errors(sources_by_task, tasks))
    if errors:
        raise ConfigError("\n".join(errors))
    return {reader: tuple(sources) for reader, sources in sources_by_task.items() if sources}


def _find_source_errors(sources_by_task: Sources, tasks: Sequence[str]) -> Iterator[str]:
    for reader, sources in sources_by_task.items():
        if reader not in tasks:
            yield f"decoder.sources: no task {reader!r}, {suggest(reader, tasks)}"
        for index, source in enumerate(sources):
            where = f"decoder.sources.{reader}.{index}"
            if source not in tasks:
                yield f"{where}: no task {source!r}, {suggest(source, tasks)}"
            elif source == reader:
                yield f"{where}: a task always reads its own encoder; leave {source!r} out"
            elif source in sources[:index]:
                yield f"{where}: {source!r} is named twice"

"""Asymmetric sharing (Tang et al., RecSys 2020, "Progressive Layered Extraction", Fig. 1b)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from densemtl.decoders.base import MakeBackbone, MakeHead
from densemtl.decoders.task_networks import OwnNetworks, own_share
from densemtl.errors import ConfigError, suggest
from densemtl.config.constraints import Fraction
from densemtl.layers.channel_mixing import Join
from densemtl.tasks.base import Task
from densemtl.types import Predictions, Sharing

Reads = Mapping[str, Sequence[str]]
"""{reader: the tasks whose encoders it reads besides its own}."""


class AsymmetricSharing(OwnNetworks):
    """A network a task, of which some tasks' heads read other tasks' backbones besides their own.

    A reader joins the pyramids level by level with a 1x1, so that any backbone will do; its loss
    trains the backbones that it reads. The other tasks' heads read their own backbone alone.

    Args:
        make_backbone: makes one network a task.
        make_head: makes one head a task.
        tasks: the run's.
        reads: {reader: the tasks that it reads}. If not given, the last task reads all others, as
            the last of two does in the paper's figure: only then does the order of tasks matter.
        alpha: share of its own features that a reader starts with; those that it reads have equal
            parts of the rest. At 1 the start is one network a task.

    Raises:
        ConfigError: `reads` names what is no task, one twice, or the reader itself.
    """

    def __init__(
        self,
        make_backbone: MakeBackbone,
        make_head: MakeHead,
        tasks: Sequence[Task],
        *,
        reads: dict[str, list[str]] | None = None,
        alpha: Fraction = 0.9,
    ) -> None:
        *others, last = names = [task.name for task in tasks]
        checked = _checked({last: others} if reads is None else reads, names)
        super().__init__(make_backbone, make_head, tasks)
        self.reads = checked
        self.joins = nn.ModuleDict()
        for reader, read in self.reads.items():
            own, other = own_share(alpha, 1 + len(read))
            self.joins[reader] = Join(self.spec.channels, [own, *(other for _ in read)])

    def forward(self, image: Tensor) -> Predictions:
        """Bx3xHxW normalised image -> logits at feature size."""
        pyramids = {task: backbone(image) for task, backbone in self.backbones.items()}
        read = dict(pyramids)
        for reader, join in self.joins.items():
            read[reader] = join([pyramids[each] for each in (reader, *self.reads[reader])])
        return Predictions({task: head(read[task]) for task, head in self.heads.items()})

    def sharing(self, image: Tensor) -> Mapping[str, Sharing]:
        """Norm of each join's block for every task that it reads, over that of the identity."""
        rows = [self._takes(reader) for reader in self.reads]
        levels = torch.stack(rows, dim=1) if rows else ()
        return {
            f"level {level}": Sharing(tuple(self.reads), self.task_names, weights)
            for level, weights in enumerate(levels, start=1)
        }

    def _takes(self, reader: str) -> Tensor:
        """Levels x tasks, 0 where a task is not read."""
        join = self.joins[reader]
        assert isinstance(join, Join)
        norms = join.norms()
        columns = [self.task_names.index(each) for each in (reader, *self.reads[reader])]
        weights = norms.new_zeros(len(norms), len(self.task_names))
        weights[:, columns] = norms
        return weights

    def fusion(self) -> list[nn.Parameter]:
        """The readers' joins."""
        return list(self.joins.parameters())


def _checked(reads: Reads, tasks: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Readers that read anyone."""
    errors = list(_errors(reads, tasks))
    if errors:
        raise ConfigError("\n".join(errors))
    return {reader: tuple(sources) for reader, sources in reads.items() if sources}


def _errors(reads: Reads, tasks: Sequence[str]) -> Iterator[str]:
    for reader, sources in reads.items():
        if reader not in tasks:
            yield f"decoder.reads: no task {reader!r}, {suggest(reader, tasks)}"
        for index, source in enumerate(sources):
            where = f"decoder.reads.{reader}.{index}"
            if source not in tasks:
                yield f"{where}: no task {source!r}, {suggest(source, tasks)}"
            elif source == reader:
                yield f"{where}: a task always reads its own encoder; leave {source!r} out"
            elif source in sources[:index]:
                yield f"{where}: {source!r} is named twice"

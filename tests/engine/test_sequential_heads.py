"""Heads that run one after another: gradients, memory, and combinations that are rejected."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import finalize

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from densemtl import registry
from densemtl.backbones.backbone import Backbone
from densemtl.config.relationship import RelationshipConfig
from densemtl.config.sections import TrainConfig
from densemtl.engine.relationship import TaskRelationship
from densemtl.engine.sequential_heads import check_sequential_heads
from densemtl.engine.train_step import TrainStep
from densemtl.errors import ConfigError
from densemtl.models.multi_task_model import MultiTaskModel
from densemtl.runs.train_run import train_experiment
from densemtl.runtime.execution import ExecutionConfig
from densemtl.tasks.base import Task
from densemtl.types import IGNORE_INDEX, Batch
from tests.helpers.exact import assert_all_same
from tests.helpers.experiments import make_tiny_experiment

NAMES = ("semseg", "depth", "normals", "edge", "saliency", "human_parts")
SIZE = (32, 48)


def make_step(
    tasks: Sequence[Task],
    sequential: bool,
    method: str = "fixed",
    decoder: str = "hard_sharing",
    head: str = "fpn",
    width: int = 8,
    scale: float = 1.0,
    related: bool = False,
    **backbone: Any,
) -> TrainStep:
    """Return a training step in double precision, whose learning rate is 0."""
    torch.manual_seed(0)
    model = MultiTaskModel(
        registry.create(
            "decoders",
            decoder,
            lambda: Backbone("test_resnet", pretrained=False, **backbone),
            lambda info, channels: registry.create(
                "heads", head, info, channels, options={"width": width} if head != "linear" else {}
            ),
            tasks,
            options={},
        )
    ).double()
    balancer = registry.create("balancing", method, tasks, options={})
    parameters = [*model.parameters(), *balancer.parameters()]
    return TrainStep(
        model,
        tasks,
        balancer,
        torch.optim.SGD(parameters, lr=0),
        ExecutionConfig(torch.device("cpu")),
        TrainConfig(sequential_heads=sequential),
        torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1),
        TaskRelationship(RelationshipConfig(), model, tasks) if related else None,
    )


def make_batch(tasks: Sequence[Task], seed: int = 0, images: int = 2) -> Batch:
    """Return random images and labels; the first image has no label of the second task."""
    generator = torch.Generator().manual_seed(seed)
    targets = {}
    for task in tasks:
        label = torch.from_numpy(task.make_empty_label(SIZE))
        if label.dtype == torch.uint8:
            targets[task.name] = torch.randint(
                0, max(task.channels, 2), (images, *SIZE), generator=generator, dtype=torch.uint8
            )
        else:
            values = torch.rand(images, task.channels, *SIZE, generator=generator)
            targets[task.name] = values + 0.1
    if len(tasks) > 1:
        second = targets[tasks[1].name]
        second[0] = torch.nan if second.is_floating_point() else IGNORE_INDEX
    image = torch.randint(0, 256, (images, 3, *SIZE), generator=generator, dtype=torch.uint8)
    return Batch(image, targets, [""] * images, [])


def run_and_get_gradients(step: TrainStep, batches: Sequence[Batch]) -> list[Tensor]:
    """Return log, gradients and running statistics after a step with fixed random numbers."""
    torch.manual_seed(1)
    log = step.run(batches)
    modules = torch.nn.ModuleList([step.model, step.balancer])
    grads = [each.grad for each in modules.parameters() if each.grad is not None]
    assert grads
    return [
        value.double() if value.is_floating_point() else value
        for value in (*log.values(), *grads, *modules.buffers())
    ]


@pytest.fixture(scope="module")
def tasks(make_task: Callable[..., Task]) -> list[Task]:
    return [make_task(name) for name in NAMES[:3]]


@pytest.mark.parametrize(
    ("options", "accumulated"),
    [
        ({"head": "deeplabv3"}, 1),  # has dropout
        ({"decoder": "ubernet"}, 1),  # has shared layers after the backbone
        ({"related": True}, 1),  # has a further loss
        ({"method": "gls"}, 2),  # its weights depend on the losses of all tasks
        ({"method": "uncertainty", "scale": 1024.0}, 2),  # has parameters
        ({"method": "famo", "freeze": "all"}, 1),  # runs forward again after the step
    ],
    ids=["dropout", "ubernet", "related", "gls", "uncertainty", "famo"],
)
def test_step_equals_step_of_all_heads_at_once(
    tasks: list[Task], options: dict[str, Any], accumulated: int
) -> None:
    batches = [make_batch(tasks, seed) for seed in range(accumulated)]
    expected, actual = (
        run_and_get_gradients(make_step(tasks, sequential, **options), batches)
        for sequential in (False, True)
    )
    assert_all_same(actual, expected)


def test_cached_features_replace_images(tasks: list[Task]) -> None:
    step, batch = make_step(tasks, True, freeze="all"), make_batch(tasks)
    expected = run_and_get_gradients(step, [batch])
    cached = step.model.eval().extract_features(batch.image)
    batch = Batch(batch.image[:, :, :0, :0], batch.targets, batch.ids, [], cached)
    assert_all_same(run_and_get_gradients(step, [batch]), expected)


def measure_saved_bytes(step: TrainStep, batch: Batch) -> int:
    """Return the peak size of the activations that wait for their backward pass."""
    sizes: dict[int, list[int]] = {}
    peak = 0

    def release(pointer: int) -> None:
        sizes[pointer].pop()
        if not sizes[pointer]:
            del sizes[pointer]

    def pack(tensor: Tensor) -> _Saved:
        nonlocal peak
        saved, storage = _Saved(tensor), tensor.untyped_storage()
        if storage.data_ptr() in parameters:
            return saved
        sizes.setdefault(storage.data_ptr(), []).append(storage.nbytes())
        finalize(saved, release, storage.data_ptr())
        peak = max(peak, sum(each[0] for each in sizes.values()))
        return saved

    parameters = {each.untyped_storage().data_ptr() for each in step.model.parameters()}
    with saved_tensors_hooks(pack, lambda saved: saved.tensor):
        step.run([batch])
    assert not sizes
    return peak


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


@pytest.mark.parametrize("decoder", ["hard_sharing", "ubernet"])
def test_memory_does_not_grow_with_the_number_of_tasks(
    make_task: Callable[..., Task], decoder: str
) -> None:
    tasks = [make_task(name) for name in NAMES]
    peaks = {
        sequential: [
            measure_saved_bytes(
                make_step(tasks[:count], sequential, decoder=decoder, width=64),
                make_batch(tasks[:count]),
            )
            for count in (1, 6)
        ]
        for sequential in (False, True)
    }
    assert peaks[True][1] < 1.05 * peaks[True][0]
    assert peaks[False][1] > (1.5 if decoder == "hard_sharing" else 1.0) * peaks[False][0]


@pytest.mark.parametrize(
    ("decoder", "method", "settings", "message"),
    [
        ("mmoe", "fixed", {}, "tasks share .* use hard_sharing, single_task"),
        ("cross_stitch", "fixed", {}, "tasks share features after the backbone"),
        ("hard_sharing", "mgda", {}, "balancing method needs the gradients of all tasks"),
        ("hard_sharing", "fixed", {"fsdp": True}, "not supported with train.fsdp"),
        ("hard_sharing", "fixed", {"compile": True}, "not supported with train.compile"),
    ],
)
def test_other_combinations_are_rejected(
    tasks: list[Task], decoder: str, method: str, settings: dict[str, bool], message: str
) -> None:
    step = make_step(tasks, True, method, decoder, head="linear")
    config = TrainConfig(sequential_heads=True, **settings)
    with pytest.raises(ConfigError, match=rf"^train.sequential_heads: .*{message}"):
        check_sequential_heads(config, step.model, step.balancer)
    check_sequential_heads(TrainConfig(**settings), step.model, step.balancer)


def test_combination_is_rejected_before_anything_is_written(tmp_path: Path) -> None:
    experiment = make_tiny_experiment(
        "decoder.name=mmoe", "train.sequential_heads=true", "baselines=auto"
    )
    with pytest.raises(ConfigError, match=r"train.sequential_heads"):
        train_experiment(experiment, tmp_path / "run", "cpu")
    assert list(tmp_path.iterdir()) == []

"""Custom classes of the wrong kind are one line, wherever a configuration names them."""

from __future__ import annotations

import pytest

from densemtl.engine.optimizer import make_optimizer
from densemtl.errors import UserError
from densemtl.factory import (
    build_balancer,
    build_dataset,
    build_model,
    build_tasks,
    build_trackers,
    build_train_loader,
)
from tests.helpers.experiments import make_tiny_experiment

KEYS = (
    *("decoder.name={}", "head.name={}", "balancing.name={}", "trackers=[{}]", "data.name={}"),
    *("tasks=[{{name: depth, kind: {}}}]", "tasks=[{{name: depth, metrics: [{}]}}]"),
    *("protocol={}", "optim.name='{}'", "backbone.name={}"),
    "augment.albumentations=[{{name: '{}'}}]",
)

CLASSES = (
    *("builtins:dict", "builtins:int", "builtins:object", "pathlib:Path", "threading:Thread"),
    *("io:BytesIO", "enum:Enum", "typing:NamedTuple", "torch:Tensor", "torch.nn:Linear"),
    *("densemtl.decoders.base:Decoder", "densemtl.balancing.base:Balancer"),
    *("densemtl.data.base:DenseDataset", "densemtl.tasks.base:Task"),
    *("densemtl.trackers.base:Tracker", "densemtl.metrics.base:TaskMetric"),
    *("densemtl.data.memory_cache:InMemoryDataset", "densemtl.errors:UserError"),
)


def build_everything(override: str) -> None:
    experiment = make_tiny_experiment(override)
    tasks = build_tasks(experiment)
    build_trackers(experiment)
    balancer = build_balancer(experiment, tasks)
    build_train_loader(experiment, build_dataset(experiment, "train"), tasks, pin_memory=False)
    make_optimizer(experiment.optim, build_model(experiment, tasks).parameter_groups(), balancer)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("key", KEYS)
def test_class_of_wrong_kind_is_one_line(key: str, name: str) -> None:
    with pytest.raises(UserError) as error:
        build_everything(key.format(name))
    lines = str(error.value).splitlines()
    assert all(len(line) < 4000 for line in lines)
    assert any(name.partition(":")[2] in line for line in lines)

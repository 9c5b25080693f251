"""An experiment: the whole configuration, strict and frozen, with every error told at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from densemtl import registry
from densemtl.config import yaml_loader
from densemtl.config.constraints import Seed
from densemtl.config.sections import (
    AugmentConfig,
    InputConfig,
    LoaderConfig,
    OptimConfig,
    ScheduleConfig,
    Section,
    TrainConfig,
)
from densemtl.config.translation import restore_config, translate_config
from densemtl.config.validation import find_errors
from densemtl.config.yaml_loader import MergedConfig
from densemtl.errors import ConfigError
from densemtl.types import SHARED, ProtocolName

CONFIG = "config.yaml"
"""Name of a resolved configuration in the folder of a run."""

NON_SEMANTIC_KEYS = {
    "data": ("root",),
    "loader": ("num_workers", "eval_batch_size", "cache", "cache_dir", "on_corrupt"),
    "train": (
        *("num_vis_images", "visualize_every", "grad_similarity_every", "log_every_steps"),
        *("checkpoint_every_steps", "grad_checkpointing", "compile", "fsdp"),
    ),
}
"""{section: keys that change where, how fast or how visibly a run goes, but no number of it}."""


def _replace_union_errors(expected: str) -> WrapValidator:
    """One line for all that pydantic says of each kind of value that could have been given."""

    def check(value: Any, inner: ValidatorFunctionWrapHandler) -> Any:
        try:
            return inner(value)
        except ValidationError as error:
            raise PydanticCustomError("one_of", "give {told}", {"told": expected}) from error

    return WrapValidator(check)


PROTOCOL_SCHEMA = {
    "anyOf": [
        {"type": "string", "enum": registry.list_names("metrics.protocols")},
        {"type": "string", "pattern": ":"},
    ]
}
"""A protocol by name, or one of the user's own."""

Baselines = Annotated[
    Literal["auto", "none"] | dict[str, Path],
    _replace_union_errors("auto, none, or {task: its run's folder}"),
]

InitFrom = Annotated[
    Literal["none", "baselines"] | dict[str, Path],
    _replace_union_errors("baselines, none, or {task: its run's folder}"),
]


class ComponentConfig(BaseModel):
    """A component by name, with its options beside the name."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """Name of the component, or `package.module:Class`."""

    @property
    def options(self) -> dict[str, Any]:
        """What was set besides the name."""
        return dict(self.model_extra or {})


class ListedComponentConfig(ComponentConfig):
    """A component in a list: `name`, or {name: .., option: ..}."""

    @model_validator(mode="before")
    @classmethod
    def _wrap_plain_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class TaskConfig(ListedComponentConfig):
    """A task; a name of one's own comes with a kind."""

    kind: str | None = None
    """Kind of the task; by default the one that its name or the data set states."""
    metrics: tuple[ListedComponentConfig, ...] = ()
    """What scores the task besides the protocol's metrics: names, or {name: .., option: ..}."""


class ExperimentConfig(Section):
    """One run: what is learnt, from what, by which network, how."""

    seed: Seed = 0
    """Of weights, order and augmentation."""
    protocol: Annotated[ProtocolName, WithJsonSchema(PROTOCOL_SCHEMA)] = "survey"
    """Which family of metrics scores the run; `package.module:Class` for one of your own."""
    tasks: tuple[TaskConfig, ...]
    """What is learnt and scored: names, or {name: .., option: ..}."""
    auxiliary_tasks: tuple[TaskConfig, ...] = ()
    """What is learnt besides, for decoders that take it; neither scored nor shown."""
    data: ComponentConfig
    """Where images and labels come from."""
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    backbone: ComponentConfig
    """A timm model by `name`."""
    decoder: ComponentConfig
    """The architecture."""
    head: ComponentConfig
    """What makes logits of features."""
    balancing: ComponentConfig = ComponentConfig(name="fixed")
    """The rule that weighs the tasks."""
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    trackers: tuple[ListedComponentConfig, ...] = (ListedComponentConfig(name="tensorboard"),)
    """What shows the run while it goes."""
    baselines: Baselines = "none"
    """Single-task references: trained where missing, none, or {task: run or results file}."""
    init_from: InitFrom = "none"
    """Where networks of one task each start: the baselines' weights, or {task: run or file}."""

    def list_task_names(self) -> list[str]:
        """The tasks' names in the order given."""
        return [task.name for task in self.tasks]

    def list_all_task_names(self) -> list[str]:
        """The tasks, then the auxiliary ones, which are learnt but neither scored nor shown."""
        return [task.name for task in (*self.tasks, *self.auxiliary_tasks)]

    def to_single_task(self, task_name: str) -> ExperimentConfig:
        """The experiment that is this one's reference for a task: the same, with nothing shared."""
        scales = {
            group: self.optim.lr_scale[group]
            for group in (SHARED, task_name)
            if group in self.optim.lr_scale
        }
        alone = {
            "tasks": tuple(task for task in self.tasks if task.name == task_name),
            "auxiliary_tasks": (),
            "decoder": ComponentConfig(name="single_task"),
            "balancing": ComponentConfig(name="fixed"),
            "optim": self.optim.model_copy(update={"lr_scale": scales}),
            "baselines": "none",
            "init_from": "none",
        }
        return self.model_copy(update=alone)

    def to_semantic_dict(self) -> dict[str, Any]:
        """The values that can change a number, whatever machine and folder the run is on."""
        values = self.model_dump(mode="json")
        for section, keys in NON_SEMANTIC_KEYS.items():
            values[section] = {k: v for k, v in values[section].items() if k not in keys}
        for key in ("baselines", "trackers"):
            values.pop(key)
        for task in (*values["tasks"], *values["auxiliary_tasks"]):
            task.pop("metrics")
        return values

    def compute_config_hash(self) -> str:
        """A short hash of `to_semantic_dict()`, which renaming a key does not change."""
        text = json.dumps(restore_config(self.to_semantic_dict()), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_yaml(self) -> str:
        """The resolved configuration as YAML that reads back to an equal experiment."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_experiment(file: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read, merge and check a configuration file.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    return validate_experiment(yaml_loader.load_config(file, overrides))


def load_saved(text: str, source: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Check an experiment as `to_yaml` wrote it, now or in an older version.

    Args:
        text: the configuration.
        source: the file that it comes from, for errors.
        overrides: `key=value` changes.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    return validate_experiment(
        yaml_loader.apply_overrides(_translate_saved(text, source), overrides, str(source))
    )


def parse_saved_experiment(text: str, source: Path) -> ExperimentConfig:
    """As `load_saved`, but whether its components exist is not checked, so none is imported.

    Raises:
        ConfigError: it is no experiment; names the source.
    """
    experiment, errors = _parse(_translate_saved(text, source))
    if experiment is None:
        raise ConfigError("\n".join(f"{source}: {error}" for error in errors))
    return experiment


def _translate_saved(text: str, source: Path) -> dict[str, Any]:
    values, _ = translate_config(yaml_loader.parse_yaml(text, str(source)))
    return values


def validate_experiment(merged_config: MergedConfig) -> ExperimentConfig:
    """A merged mapping -> an experiment whose every name and option exists.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    values, renamed = translate_config(merged_config.values)
    experiment, errors = _parse(values)
    errors = [*(f"{old.path}: {old.message}" for old in renamed), *errors, *find_errors(values)]
    if experiment is None or errors:
        lines = [f"{merged_config.find_source(error.split(':')[0])}: {error}" for error in errors]
        raise ConfigError("\n".join(lines))
    return experiment


def _parse(values: Mapping[str, Any]) -> tuple[ExperimentConfig | None, list[str]]:
    """An experiment, or one line for each value of a wrong type."""
    try:
        return ExperimentConfig.model_validate(values), []
    except ValidationError as error:
        return None, registry.format_validation_errors(error, "", ExperimentConfig)

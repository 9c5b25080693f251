"""Configuration of an experiment, and functions that load and validate it.

All errors of a configuration are reported together, one line each.

Example:
    >>> import tempfile
    >>> text = '''
    ... tasks: [semseg, depth]
    ... data: {name: synthetic}
    ... backbone: {name: test_resnet, pretrained: false}
    ... decoder: {name: hard_sharing}
    ... head: {name: linear}
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "run.yaml")
    ...     _ = file.write_text(text)
    ...     experiment = load_experiment(file, ["optim.lr=2e-4", "train.epochs=3"])
    >>> experiment.list_task_names(), experiment.optim.lr, experiment.train.epochs
    (['semseg', 'depth'], 0.0002, 3)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from densemtl import registry
from densemtl.config import yaml_loader
from densemtl.config.components import ComponentConfig, ListedComponentConfig, TaskConfig
from densemtl.config.constraints import (
    NamedProtocol,
    Seed,
    UserPath,
    replace_union_errors,
)
from densemtl.config.curriculum import CurriculumConfig
from densemtl.config.distillation import DistillConfig
from densemtl.config.relationship import RelationshipConfig
from densemtl.config.saved_settings import restrict_saved
from densemtl.config.sections import (
    AugmentConfig,
    InputConfig,
    LoaderConfig,
    OptimConfig,
    ScheduleConfig,
    Section,
    TrainConfig,
)
from densemtl.config.semantic_keys import select_semantic
from densemtl.config.teachers import Teachers
from densemtl.config.translation import restore_config, translate_config
from densemtl.config.validation import find_errors
from densemtl.config.yaml_loader import MergedConfig
from densemtl.config.yaml_text import parse_yaml
from densemtl.errors import ConfigError
from densemtl.types import SHARED

EARLIER_DEFAULTS = {"amp": "none", "channels_last": True}
"""Defaults in the section `train` of versions that saved configurations without these keys."""


Baselines = Annotated[
    Literal["auto", "none"] | dict[str, UserPath],
    replace_union_errors("auto, none or {task: run folder}"),
]

InitFrom = Annotated[
    Literal["none", "baselines"] | dict[str, UserPath] | UserPath,
    replace_union_errors("a run folder, baselines, none or {task: run folder}"),
]


class ExperimentConfig(Section):
    """Configuration of one training run."""

    seed: Seed = 0
    """Seed of initial weights, order of samples and augmentation."""
    protocol: NamedProtocol = "survey"
    """Evaluation protocol, which defines the metrics; `package.module:Class` for a custom one."""
    tasks: tuple[TaskConfig, ...]
    """Tasks to learn and evaluate: names, or `{name: .., option: ..}`."""
    auxiliary_tasks: tuple[TaskConfig, ...] = ()
    """Tasks that are learned but not evaluated, for decoders that support them."""
    data: ComponentConfig
    """Dataset of images and labels."""
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    loader: LoaderConfig = LoaderConfig()
    backbone: ComponentConfig
    """Name and options of a timm model."""
    decoder: ComponentConfig
    """Decoder, which connects the backbone with the heads."""
    head: ComponentConfig
    """Head of each task, which computes logits from features."""
    balancing: ComponentConfig = ComponentConfig(name="fixed")
    """Balancing method, which computes the weights of losses or gradients."""
    optim: OptimConfig = OptimConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    relationship: RelationshipConfig | None = None
    """Prior on the layers that are equal in all tasks, such as `{weight: 0.1}`; null for none."""
    curriculum: CurriculumConfig | None = None
    """Phases of the training, in which different tasks are trained; null for all tasks always."""
    distill: DistillConfig | None = None
    """Frozen timm models whose features the backbone learns to predict; null for none."""
    trackers: tuple[ListedComponentConfig, ...] = (ListedComponentConfig(name="tensorboard"),)
    """Experiment trackers: names, or `{name: .., option: ..}`."""
    baselines: Baselines = "none"
    """Single-task runs to compare with: `auto` trains them if they are missing, `none` uses none,
    `{task: path}` names run folders or results files."""
    init_from: InitFrom = "none"
    """Initial weights: a run folder or weights file of any decoder and any tasks, or the name of a
    shipped model, `densemtl/NAME`. Tensors that agree in name and shape are loaded, and the others
    are listed. For decoders that have one network per task also `baselines`, or `{task: path}` with
    a single-task run per task."""
    init_strict: bool = False
    """Whether it is an error if a tensor of the model or of the run `init_from` is not used."""
    teachers: Teachers = Field(default_factory=dict, json_schema_extra={"default": "none"})
    """{task: run} or {task: {run: .., threshold: ..}}: trained models whose predictions replace the
    labels of training images that have none; or `none`. They are computed before training and
    cached."""

    def list_task_names(self) -> list[str]:
        """List the names of the tasks in the order of the configuration.

        Returns:
            Names, without auxiliary tasks.
        """
        return [task.name for task in self.tasks]

    def list_all_task_names(self) -> list[str]:
        """List the names of the tasks, followed by those of the auxiliary tasks.

        Returns:
            Names of all tasks that are learned.
        """
        return [task.name for task in (*self.tasks, *self.auxiliary_tasks)]

    def to_single_task(self, task_name: str) -> ExperimentConfig:
        """Return the experiment of the single-task baseline of a task.

        All settings stay the same, except those that concern several tasks.

        Args:
            task_name: one of the tasks.

        Returns:
            A new experiment with this task only.
        """
        scales = {
            group: self.optim.lr_scale[group]
            for group in (SHARED, task_name)
            if group in self.optim.lr_scale
        }
        alone = {
            "tasks": tuple(
                task.without_other_tasks() for task in self.tasks if task.name == task_name
            ),
            "auxiliary_tasks": (),
            "decoder": ComponentConfig(name="single_task"),
            "balancing": ComponentConfig(name="fixed"),
            "optim": self.optim.model_copy(update={"lr_scale": scales}),
            "train": self.train.model_copy(update={"extensions": (), "async_updates": None}),
            "baselines": "none",
            "init_from": "none",
            "init_strict": False,
            "teachers": {},
            "relationship": None,
            "curriculum": None,
            "distill": None,
        }
        return self.model_copy(update=alone)

    def to_semantic_dict(self) -> dict[str, Any]:
        """Return the configuration without the keys that do not affect the results of training.

        Returns:
            {key: value} that does not depend on the machine and on folders.
        """
        return select_semantic(self.model_dump(mode="json"))

    def compute_config_hash(self) -> str:
        """Compute a short hash of `to_semantic_dict()`, independent of renamed keys.

        Returns:
            12 hexadecimal digits.
        """
        text = json.dumps(restore_config(self.to_semantic_dict()), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def list_config_hashes(self) -> list[str]:
        """Return the hashes that runs of this experiment may have on different hardware.

        Returns:
            One hash, or one per autocast type that `train.amp: auto` may be resolved to.
        """
        if self.train.amp != "auto":
            return [self.compute_config_hash()]
        return [self.with_train(amp=amp).compute_config_hash() for amp in ("auto", "none", "bf16")]

    def with_train(self, **values: Any) -> ExperimentConfig:
        """Return a copy with other values in the section `train`.

        Args:
            values: {key: value}, not validated.

        Returns:
            The changed copy.
        """
        return self.model_copy(update={"train": self.train.model_copy(update=values)})

    def to_yaml(self) -> str:
        """Serialize the resolved configuration.

        Returns:
            YAML text from which an equal experiment can be loaded.
        """
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def load_experiment(file: Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Load and validate a configuration file.

    Args:
        file: YAML file; `base` names a file to inherit from.
        overrides: changes of values, `key.key=value`.

    Returns:
        The experiment, whose components and options all exist.

    Raises:
        ConfigError: if the configuration is wrong; one line per error.
    """
    return validate_experiment(yaml_loader.load_config(file, overrides))


def load_saved(
    text: str,
    source: Path,
    overrides: Sequence[str] = (),
    *,
    trust_custom_code: bool = False,
    restrict: bool = False,
) -> ExperimentConfig:
    """Load and validate a configuration that this or an older version saved by `to_yaml`.

    Args:
        text: YAML text.
        source: file of the text, for error messages.
        overrides: changes of values, `key.key=value`.
        trust_custom_code: whether it may name custom classes, `package.module:Class`.
        restrict: ignore the settings that `restrict_saved` lists, since the file may come from
            another source.

    Returns:
        The experiment, with renamed keys translated.

    Raises:
        ConfigError: if the configuration is wrong; one line per error.
    """
    values = _translate_saved(text, source)
    values = restrict_saved(values) if restrict else values
    merged = yaml_loader.apply_overrides(values, overrides, str(source))
    with registry.custom_code(trust_custom_code):
        return validate_experiment(merged)


def parse_saved_experiment(text: str, source: Path) -> ExperimentConfig:
    """Load a saved configuration without importing and validating its components.

    Args:
        text: YAML text.
        source: file of the text, for error messages.

    Returns:
        The experiment, with renamed keys translated.

    Raises:
        ConfigError: if a key or the type of a value is wrong; one line per error.
    """
    experiment, errors = _parse(_translate_saved(text, source))
    if experiment is None:
        raise ConfigError("\n".join(f"{source}: {error}" for error in errors))
    return experiment


def _translate_saved(text: str, source: Path) -> dict[str, Any]:
    values, _ = translate_config(parse_yaml(text, str(source)))
    if isinstance(train := values.setdefault("train", {}), dict):
        values["train"] = {**EARLIER_DEFAULTS, **train}
    return values


def validate_experiment(merged_config: MergedConfig) -> ExperimentConfig:
    """Validate a merged configuration, including names and options of components.

    Args:
        merged_config: values and the files that they come from.

    Returns:
        The experiment.

    Raises:
        ConfigError: if the configuration is wrong; one line per error, with file and key.
    """
    values, renamed = translate_config(merged_config.values)
    experiment, errors = _parse(values)
    errors = [*(f"{old.path}: {old.message}" for old in renamed), *errors, *find_errors(values)]
    if experiment is None or errors:
        lines = [f"{merged_config.find_error_source(error)}: {error}" for error in errors]
        raise ConfigError("\n".join(lines))
    return experiment


def _parse(values: Mapping[str, Any]) -> tuple[ExperimentConfig | None, list[str]]:
    """Return an experiment or None, and one line for each value of a wrong type."""
    try:
        return ExperimentConfig.model_validate(values), []
    except ValidationError as error:
        return None, registry.format_validation_errors(error, "", ExperimentConfig)

"""A suite's file, strictly checked: which parts to combine, and where it all goes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from densemtl import registry
from densemtl.config import yaml_loader
from densemtl.config.constraints import PositiveInt, Seed
from densemtl.config.experiment import ListedComponentConfig
from densemtl.config.sections import Section
from densemtl.errors import ConfigError, suggest

Entries = tuple[ListedComponentConfig, ...]


class BenchmarkConfig(Section):
    """A suite file.

    Attributes:
        base: the experiment that all runs start from, beside the suite file; its `baselines` say
            whether single-task references are trained.
        overrides: `key=value` changes of it.
        decoders: the architectures.
        backbones: to combine them with; the base's where none is given.
        balancing: likewise.
        seeds: of every combination.
        reference: what the others are held against, the first if not given: an architecture, or,
            where there is one of them and several of balancing, a rule.
        workers: runs at once.
        output: folder of the runs and the report; runs/benchmark/NAME if not given.
        panels: whether pictures of the dataset may be shown in the report.
    """

    base: Path
    overrides: tuple[str, ...] = ()
    decoders: Entries
    backbones: Entries = ()
    balancing: Entries = ()
    seeds: tuple[Seed, ...] = (0,)
    reference: str | None = None
    workers: PositiveInt = 1
    output: Path | None = None
    panels: bool = False

    @property
    def comparison_axis(self) -> Literal["decoders", "balancing"]:
        """Along what groups are held against each other."""
        only_rules = len(self.decoders) == 1 and len(self.balancing) > 1
        return "balancing" if only_rules else "decoders"


def load_benchmark_config(file: Path) -> BenchmarkConfig:
    """Read and check a suite file; `plan` then looks into what its base and components are.

    Raises:
        ConfigError: one line for each thing that is wrong.
    """
    try:
        suite = BenchmarkConfig.model_validate(yaml_loader.read_yaml(file))
    except ValidationError as error:
        lines = registry.format_validation_errors(error, "", BenchmarkConfig)
        raise ConfigError("\n".join(f"{file}: {line}" for line in lines)) from error
    errors = [f"{file}: {error}" for error in _find_errors(suite)]
    if errors:
        raise ConfigError("\n".join(errors))
    return suite


def _find_errors(config: BenchmarkConfig) -> Iterator[str]:
    for section in ("decoders", "seeds"):
        if not getattr(config, section):
            yield f"{section}: name at least one"
    if len(set(config.seeds)) < len(config.seeds):
        yield f"seeds: {list(config.seeds)} names one twice"
    choices = make_entry_names(getattr(config, config.comparison_axis))
    if config.reference is not None and config.reference not in choices:
        near = suggest(config.reference, choices)
        yield f"reference: {config.reference!r} is no entry of {config.comparison_axis}, {near}"
    for section in ("decoders", "backbones", "balancing"):
        labels = make_entry_names(getattr(config, section))
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            yield f"{section}: {twice[0]!r} is given twice"


def make_entry_names(entries: Sequence[ListedComponentConfig]) -> list[str]:
    """Names fit for folders; options beside those that several entries have."""
    names = [entry.name for entry in entries]
    labels = []
    for entry in entries:
        options = entry.options.items() if names.count(entry.name) > 1 else ()
        labels.append("-".join([entry.name, *(f"{key}={value}" for key, value in options)]))
    return [sanitize_folder_name(label) for label in labels]


def sanitize_folder_name(name: str) -> str:
    """`my.module:Class` -> `my.module_Class`."""
    return re.sub(r"[^\w.=+-]+", "_", name)

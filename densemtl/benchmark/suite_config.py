"""Benchmark configuration: components to combine, seeds, reference and output folder."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from densemtl import registry
from densemtl.config.components import ListedComponentConfig
from densemtl.config.constraints import PositiveInt, Seed, UserPath
from densemtl.config.sections import Section
from densemtl.config.yaml_text import read_yaml
from densemtl.errors import ConfigError, suggest

Entries = tuple[ListedComponentConfig, ...]


class BenchmarkConfig(Section):
    """Configuration of a benchmark, read from a YAML file.

    Attributes:
        base: experiment configuration that all runs are derived from, a path relative to the
            benchmark file or the name of a shipped configuration; its `baselines` option
            selects whether single-task baselines are trained.
        overrides: changes `key=value` of the base.
        decoders: decoders to compare.
        backbones: backbones to combine them with; empty uses the backbone of the base.
        balancing: balancing methods to combine them with; empty uses that of the base.
        seeds: seeds of every combination.
        reference: entry that the others are compared with: a decoder, or a balancing method if
            there is one decoder and several balancing methods. None uses the first entry.
        workers: number of runs at the same time.
        output: folder of the runs and the report; None uses runs/benchmark/NAME.
        panels: whether the report may show images of the dataset.
    """

    base: UserPath
    overrides: tuple[str, ...] = ()
    decoders: Entries
    backbones: Entries = ()
    balancing: Entries = ()
    seeds: tuple[Seed, ...] = (0,)
    reference: str | None = None
    workers: PositiveInt = 1
    output: UserPath | None = None
    panels: bool = False

    @property
    def comparison_axis(self) -> Literal["decoders", "balancing"]:
        """Section whose entries are compared with each other."""
        only_balancing = len(self.decoders) == 1 and len(self.balancing) > 1
        return "balancing" if only_balancing else "decoders"


def load_benchmark_config(file: Path) -> BenchmarkConfig:
    """Read and validate a benchmark file; `make_plan` validates its base and its components.

    Args:
        file: YAML file.

    Returns:
        The configuration.

    Raises:
        ConfigError: if the file cannot be read or is invalid; one line per error.
    """
    try:
        suite = BenchmarkConfig.model_validate(read_yaml(file))
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
            yield f"{section}: empty list, give at least one entry"
    if len(set(config.seeds)) < len(config.seeds):
        yield f"seeds: {list(config.seeds)} has duplicates, give each seed once"
    choices = make_entry_names(getattr(config, config.comparison_axis))
    if config.reference is not None and config.reference not in choices:
        near = suggest(config.reference, choices)
        yield f"reference: {config.reference!r} is not an entry of {config.comparison_axis}, {near}"
    for section in ("decoders", "backbones", "balancing"):
        labels = make_entry_names(getattr(config, section))
        twice = [label for label in labels if labels.count(label) > 1]
        if twice:
            yield f"{section}: {twice[0]!r} is listed twice, give each entry once"


def make_entry_names(entries: Sequence[ListedComponentConfig]) -> list[str]:
    """Make names of entries that are valid folder names.

    Args:
        entries: entries of one section.

    Returns:
        One name per entry; options are appended if several entries have the same component.
    """
    components = [entry.name for entry in entries]
    names = []
    for entry in entries:
        options = entry.options.items() if components.count(entry.name) > 1 else ()
        names.append("-".join([entry.name, *(f"{key}={value}" for key, value in options)]))
    return [sanitize_folder_name(name) for name in names]


def sanitize_folder_name(name: str) -> str:
    """Replace characters that are unsuitable for folder names.

    Args:
        name: any name, such as `my.module:Class`.

    Returns:
        The name with each run of such characters replaced by "_", such as `my.module_Class`.
    """
    return re.sub(r"[^\w.=+-]+", "_", name)

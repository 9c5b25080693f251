"""Random configurations, valid and invalid, for tests and for benchmarks of error messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from densemtl.config.experiment import ExperimentConfig, load_experiment
from densemtl.errors import UserError
from tests.helpers.experiments import TINY_CONFIG

KEYS = (*ExperimentConfig.model_fields, "base", "name", "kind", "lr", "root", "weights", "labels")
WORDS = (
    *("nyud", "folder", "shards", "synthetic", "pad_net", "resnet18", "fixed", "semseg", "auto"),
    *("~", "1e400", "0x1f", "1_000", "2020-13-40", "!!python/name:os.system", "*a", "&a", "\0"),
    *("../../etc/passwd", "os:system", "builtins:print", "nowhere:Class", ":", "a.b:", "\ud800"),
)
PATHS = (
    *("seed", "tasks", "tasks.0", "data", "data.name", "data.size", "data.root", "backbone.name"),
    *("input.size", "decoder", "head.width", "balancing", "balancing.weights.semseg", "optim.lr"),
    *(
        "optim.lr_scale",
        "loader.batch_size",
        "loader.cache",
        "augment.color_jitter",
        "augment.albumentations",
    ),
    *(
        "train.epochs",
        "train.ema_decay",
        "baselines",
        "init_from",
        "auxiliary_tasks",
        "protocol",
        "x.y",
    ),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from((2**31, 2**63, 10**40, -1, 0)),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(WORDS),
)
values = st.recursive(
    scalars,
    lambda inside: st.one_of(
        st.lists(inside, max_size=4),
        st.dictionaries(st.one_of(st.sampled_from(KEYS), scalars), inside, max_size=4),
    ),
    max_leaves=12,
)
trees = st.dictionaries(st.sampled_from(KEYS), values, max_size=6)
raw = st.one_of(st.text(max_size=80), st.text("{}[]:,&*!|>-?#%@'\"\n\t ab1.e", max_size=60))


def _take_few(tree: dict[Any, Any], draw: st.DrawFn) -> dict[Any, Any]:
    """Return at most two of the keys, so that the effect of single keys is tested."""
    return dict(list(tree.items())[: draw(st.integers(0, 2))])


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Draw a YAML file: a valid one with some random values, only random values, or any text."""
    tree = draw(trees)
    kind = draw(st.sampled_from(("good", "good", "good", "random", "cut", "any")))
    if kind == "any":
        return draw(raw)
    written = yaml.dump(
        {**TINY_CONFIG, **_take_few(tree, draw)} if kind == "good" else tree, allow_unicode=True
    )
    return written[: draw(st.integers(0, len(written)))] if kind == "cut" else written


overrides = st.lists(
    st.one_of(
        raw,
        st.sampled_from(("seed=7", "optim.lr=1e-4", "tasks=[depth]", "train={epochs: 3}")),
        st.builds("{}={}".format, st.sampled_from(PATHS), st.one_of(raw, st.sampled_from(WORDS))),
        st.builds(
            lambda path, value: f"{path}={yaml.dump(value, default_flow_style=True)}",
            st.sampled_from(PATHS),
            values,
        ),
    ),
    max_size=2,
)


def load_outcome(file: Path, text: str, changes: list[str]) -> ExperimentConfig | list[str]:
    """Return the experiment that a file and overrides describe, or the lines of the error."""
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        return load_experiment(file, changes)
    except UserError as error:
        return str(error).split("\n")


def is_clear_error(lines: list[str], file: Path) -> bool:
    """Return whether every line names its source and is shorter than a few rows of a terminal."""
    sources = (f"{file}: ", "command line: ", f"{file.parent}/")
    return all(line.startswith(sources) and len(line) < 900 for line in lines)


def is_saved_unchanged(experiment: ExperimentConfig, file: Path) -> bool:
    """Return whether a valid experiment can be loaded from its saved form without changes."""
    reloaded: Any = load_outcome(file, experiment.to_yaml(), [])
    return (
        isinstance(reloaded, ExperimentConfig)
        and reloaded.compute_config_hash() == experiment.compute_config_hash()
    )

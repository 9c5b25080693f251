"""Selection of the configuration keys that affect the results of training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from densemtl.config.data_sets import change_sets

NON_SEMANTIC_DATA_KEYS = ("root", "offers")
"""Keys of a dataset, alone or in a mixture, that do not affect results."""

NON_SEMANTIC_KEYS = {
    "loader": (
        *("num_workers", "eval_batch_size", "on_corrupt"),
        *("cache", "cache_dir", "cache_max_gb"),
    ),
    "train": (
        *("num_vis_images", "visualize_every", "grad_similarity_every", "log_every_steps"),
        *("checkpoint_every_steps", "grad_checkpointing", "sequential_heads", "compile", "fsdp"),
        *("deterministic", "async_checkpoints"),
    ),
}
"""{section: keys that affect location, speed, memory or logging of a run, but not its results}."""

NON_SEMANTIC_TASK_KEYS = ("metrics", "computed_class_weights")
"""Keys of tasks that do not affect results; class weights follow from `loss` and the data."""

NON_SEMANTIC_TEACHER_KEYS = ("weights_hash", "trust_custom_code")
"""Keys of teachers that do not affect results; a run adds the hash of the weights."""

ADDED_KEYS: Mapping[str, Mapping[str, Any]] = {
    "augment": {"num_views": None},
    "optim": {"weight_decay_on": "all", "layer_decay": None, "options": {}},
    "train": {
        **{"steps": None, "eval_every_steps": None, "early_stopping": None, "extensions": []},
        "tf32": True,
        "async_updates": None,
    },
}
"""{section: {key: default}} of keys that were added later. They are left out at their default, so
that runs of earlier versions keep their hash."""


ADDED_SECTIONS = ("relationship", "curriculum", "distill")
"""Sections that were added later, and are left out if they are null."""


def select_semantic(values: Mapping[str, Any]) -> dict[str, Any]:
    """Select the keys that affect the results of training.

    Args:
        values: a complete configuration.

    Returns:
        A copy of `values` that does not depend on the machine and on folders.
    """
    selected = dict(values)
    selected["data"] = change_sets(
        selected["data"], lambda data: _without(data, NON_SEMANTIC_DATA_KEYS)
    )
    for section, keys in NON_SEMANTIC_KEYS.items():
        selected[section] = _without(selected[section], keys)
    for section, defaults in ADDED_KEYS.items():
        selected[section] = {
            key: value
            for key, value in selected[section].items()
            if key not in defaults or value != defaults[key]
        }
    if selected["train"]["channels_last"] == "auto":
        selected["train"]["channels_last"] = True  # the layouts differ in rounding only
    for key in ("baselines", "trackers", "init_strict"):
        selected.pop(key)
    for section in ("tasks", "auxiliary_tasks"):
        selected[section] = [
            {key: value for key, value in task.items() if key not in NON_SEMANTIC_TASK_KEYS}
            for task in selected[section]
        ]
    for section in ADDED_SECTIONS:
        if selected[section] is None:
            selected.pop(section)
    teachers = selected.pop("teachers")
    if teachers:  # absent in runs of earlier versions
        selected["teachers"] = {
            task: _without(teacher, NON_SEMANTIC_TEACHER_KEYS) for task, teacher in teachers.items()
        }
    return selected


def _without(section: Mapping[str, Any], keys: Collection[str]) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key not in keys}

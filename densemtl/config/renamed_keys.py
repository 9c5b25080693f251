"""Tables of renamed configuration keys, values, result fields and model parameters.

Configuration files and overrides of users must use the new names; an old name is an error that
names the new one. Files saved by a run (configuration, results, weights) are translated silently.

A path has one part per level: `train.accumulate`. The path of an option contains the name of the
component, or the kind of the task: `decoder.mti_net.softmax`, `tasks.edge.max_distance`. `*`
matches any single part. All parts except the last one are new names.
"""

from __future__ import annotations

from typing import Any

_TASK_OPTIONS = ("tasks.*", "data.folder.labels.*.options")
"""Paths of sections that contain options of tasks."""

_RENAMED_TASK_OPTIONS = {
    "colours": "colors",
    "divisor": "reduction",
    "high": "vis_max",
    "low": "vis_min",
    "regions_under": "region_label_protocols",
    "scales_with_zoom": "scale_equivariant",
}
_RENAMED_TASK_KINDS = {"classes": "classification", "unit_vectors": "direction"}
_RENAMED_REDUCTIONS = {"elements": "element_mean", "pixels": "pixel_mean"}

RENAMED_KEYS: dict[str, str] = {
    "augment.flip": "flip_prob",
    "augment.jitter": "color_jitter",
    "augment.max_class_ratio": "cat_max_ratio",
    "augment.pixels": "albumentations",
    "augment.rotate": "max_rotation",
    "augment.zoom_choices": "scales",
    "augment.zooms": "scale_range",
    "balancing.gradnorm.rate": "lr",
    "data.folder.labels.*.first": "first_class_id",
    "data.folder.labels.*.stored": "encoding",
    "data.folder.labels.*.void": "ignore_values",
    "data.folder.val_share": "val_fraction",
    "data.nyud.classes": "num_classes",
    "data.nyud.train_list": "train_split_name",
    "data.nyud.val_list": "val_split_name",
    "data.pascal_context.cache": "derived_labels",
    "data.pascal_context.edge_val_list": "edge_val_split_name",
    "data.pascal_context.train_list": "train_split_name",
    "data.pascal_context.val_list": "val_split_name",
    "data.shards.folder": "cache_dir",
    "data.shards.keep": "max_cached_shards",
    "decoder.asymmetric_sharing.reads": "sources",
    "decoder.cgc.gate": "gating",
    "decoder.cgc.own_experts": "task_experts",
    "decoder.ml_mmoe.gate": "gating",
    "decoder.mmoe.gate": "gating",
    "decoder.ple.gate": "gating",
    "decoder.ple.own_experts": "task_experts",
    "head.deeplabv3.rates": "atrous_rates",
    "loader.cache_folder": "cache_dir",
    "loader.corrupt": "on_corrupt",
    "loader.workers": "num_workers",
    "schedule.final_lr": "min_lr",
    "schedule.per": "interval",
    "trackers.mlflow.experiment": "experiment_name",
    "trackers.mlflow.uri": "tracking_uri",
    "train.accumulate": "grad_accum_steps",
    "train.checkpoint_activations": "grad_checkpointing",
    "train.checkpoint_steps": "checkpoint_every_steps",
    "train.clip_norm": "max_grad_norm",
    "train.ema": "ema_decay",
    "train.log_every": "log_every_steps",
    "train.non_finite": "on_non_finite",
    "train.panels": "num_vis_images",
    "train.panels_every": "visualize_every",
    "train.relations_every": "grad_similarity_every",
    "train.shard": "fsdp",
    **{
        f"{path}.{old}": new for path in _TASK_OPTIONS for old, new in _RENAMED_TASK_OPTIONS.items()
    },
}
"""{path of an old key: new key}, such as {"train.accumulate": "grad_accum_steps"}."""

RENAMED_VALUES: dict[str, dict[Any, Any]] = {
    "augment.crop": {"centre": "center"},
    "schedule.interval": {"iteration": "step"},
    "head.name": {"deeplab": "deeplabv3", "hrnet": "hrnetv2"},
    "tasks.kind": _RENAMED_TASK_KINDS,
    "data.folder.labels.*.kind": _RENAMED_TASK_KINDS,
    "decoder.mti_net.softmax": {"published_code": "reference_code"},
    "metrics.name": {"reliability": "calibration_error"},
    **{f"{path}.reduction": _RENAMED_REDUCTIONS for path in _TASK_OPTIONS},
}
"""{path: {old value: new value}}, such as {"schedule.interval": {"iteration": "step"}}. Renamed
decoders have the path `decoder.name`."""

RENAMED_RESULT_FIELDS: dict[str, str] = {
    "tasks.*.primary": "primary_metric",
    "tasks.*.selection": "selection_metric",
    "baselines.*.weights": "weights_hash",
    "weights": "weights_hash",
    "fingerprint": "config_hash",
}
"""{path of an old field of results.json: new field}."""

RENAMED_PROGRESS_FIELDS: dict[str, str] = {
    "best": "best_selection_scores",
    "best_weights": "best_weights_hash",
}
"""{old field: new field} of the training progress in a checkpoint."""

RENAMED_PARAMETERS: dict[str, dict[str, str]] = {
    "pad_net": {
        "decoder.initial.": "decoder.initial_features.",
        "decoder.guess.": "decoder.initial_heads.",
        "decoder.distil.": "decoder.distillation.",
        "decoder.final.": "decoder.final_heads.",
    },
    "mti_net": {
        "decoder.initial.": "decoder.initial_features.",
        "decoder.guess.": "decoder.initial_heads.",
        "decoder.propagate.": "decoder.feature_propagation.",
        "decoder.distil.": "decoder.distillation.",
    },
    "asymmetric_sharing": {"decoder.joins.": "decoder.mixers."},
    "customized_sharing": {
        "decoder.shared.": "decoder.shared_backbone.",
        "decoder.joins.": "decoder.mixers.",
    },
}
"""{decoder: {old prefix: new prefix}} of parameters in a state dict; `*` matches any decoder."""

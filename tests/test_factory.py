"""Public API of the package: fast import, models and tasks by name."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

import densemtl
from densemtl.errors import ConfigError
from densemtl.tasks.classification import Classification

HEAVY = ("torch", "timm", "cv2", "pydantic")


def test_import_is_lazy_and_exports_all_public_names() -> None:
    code = f"import sys, densemtl; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(densemtl.__all__) <= set(dir(densemtl))
    for name in densemtl.__all__:
        assert getattr(densemtl, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'list_decoder'"):
        densemtl.list_decoder  # noqa: B018


def test_list_functions_return_component_names() -> None:
    assert {"hard_sharing", "mti_net"} <= set(densemtl.list_decoders())
    assert {"fpn", "deeplabv3"} <= set(densemtl.list_heads())
    assert {"semseg", "depth", "classification"} <= set(densemtl.list_tasks())
    assert {"nyud", "synthetic"} <= set(densemtl.list_datasets())
    assert {"fixed", "uncertainty"} <= set(densemtl.list_balancing())
    assert densemtl.list_protocols() == ["modern", "survey"]
    assert set(densemtl.list_metrics()) >= {"miou", "boundary", "calibration_error"}
    assert densemtl.list_trackers() == ["mlflow", "tensorboard", "wandb"]


def test_create_model_accepts_any_image_size() -> None:
    model = densemtl.create_model(
        "mti_net", backbone="test_resnet", tasks=["semseg", "depth"], data="nyud"
    )
    final = model(torch.zeros(2, 3, 50, 70, dtype=torch.uint8)).logits
    assert {task: logits.shape for task, logits in final.items()} == {
        "semseg": (2, 40, 50, 70),
        "depth": (2, 1, 50, 70),
    }


def test_create_model_with_custom_tasks_and_options() -> None:
    custom = Classification("material", class_names=["wood", "metal"])
    tasks = [custom, {"name": "albedo", "kind": "regression", "channels": 3}, "edge"]
    model = densemtl.create_model(
        {"name": "pad_net", "width": 8},
        backbone={"name": "test_resnet", "output_stride": 16},
        head={"name": "fpn", "width": 16},
        tasks=tasks,
        auxiliary_tasks=["depth"],
    )
    predictions = model(torch.zeros(1, 3, 32, 32))
    assert [logits.shape[1] for logits in predictions.logits.values()] == [2, 3, 1]
    assert set(predictions.aux_logits[0]) == {"material", "albedo", "edge", "depth"}
    assert densemtl.create_tasks(tasks)[0] is custom


def test_create_tasks_uses_dataset_defaults_without_files() -> None:
    (parts,) = densemtl.create_tasks(["human_parts"], data="pascal_context")
    assert isinstance(parts, Classification)
    assert parts.channels == 7
    (coarse,) = densemtl.create_tasks(["semseg"], data={"name": "nyud", "num_classes": 13})
    assert coarse.channels == 13


def test_create_model_with_fixed_size_backbone() -> None:
    model = densemtl.create_model(
        "hard_sharing", backbone="hiera_tiny_224", tasks=["depth"], head="linear", img_size=(64, 96)
    )
    assert model(torch.zeros(1, 3, 64, 96)).logits["depth"].shape == (1, 1, 64, 96)


@pytest.mark.parametrize(
    ("decoder", "changed", "message"),
    [
        ("mti_nt", {}, "decoder.name: no 'mti_nt' in decoders: did you mean 'mti_net'"),
        ({"name": "mtan", "wdth": 3}, {}, "decoder.wdth: unknown key"),
        ("mtan", {"head": "fnp"}, "head.name: no 'fnp' in heads: did you mean 'fpn'"),
        ("mtan", {"tasks": ["dpth"]}, "no 'dpth' in tasks: did you mean 'depth'"),
        ("mtan", {"tasks": ["semseg"]}, "semseg.class_names: must be given"),
        ("mtan", {"tasks": ["depth"], "data": "nyu"}, "no 'nyu' in datasets: did you mean 'nyud'"),
        ("mtan", {"tasks": ["saliency"], "data": "nyud"}, "the dataset has no task 'saliency'"),
        ("mtan", {"tasks": ["depth", "depth"]}, "'depth' is listed twice"),
        ("mtan", {"auxiliary_tasks": ["edge"]}, "not supported by decoder 'mtan'"),
        ("mtan", {"tasks": []}, "tasks: list at least one task"),
    ],
)
def test_wrong_components_are_config_errors(
    decoder: Any, changed: dict[str, Any], message: str
) -> None:
    given = {"backbone": "test_resnet", "tasks": ["depth"], **changed}
    with pytest.raises(ConfigError) as caught:
        densemtl.create_model(decoder, **given)
    assert message in str(caught.value)


def test_img_size_out_of_range_is_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^backbone.img_size.0: Input should be greater than"):
        densemtl.create_model(
            "hard_sharing", backbone="test_vit", tasks=["depth"], img_size=(-3, 32)
        )

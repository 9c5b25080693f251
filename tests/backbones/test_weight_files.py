"""Backbone weights from files: wrappers, prefixes, classifiers, other names, and wrong files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from densemtl.backbones.backbone import Backbone
from densemtl.errors import ModelError
from densemtl.factory import build_model, build_tasks
from densemtl.runs.train_run import train_experiment
from tests.helpers.experiments import make_tiny_experiment

FAMILIES = [
    *("test_resnet", "test_convnext", "test_vit", "test_efficientnet"),
    *("hrnet_w18_small", "swin_tiny_patch4_window7_224"),
]


def make_state(name: str, num_classes: int = 7) -> dict[str, Tensor]:
    """Return the state dict of a random classifier."""
    torch.manual_seed(1)
    options: dict[str, Any] = {"num_classes": num_classes}
    return timm.create_model(name, pretrained=False, **options).state_dict()


def list_features(backbone: Backbone) -> list[Tensor]:
    torch.manual_seed(2)
    side = 224 if "swin" in backbone.name else 64
    with torch.no_grad():
        return backbone.eval()(torch.randn(1, 3, side, side))


def assert_equal_features(name: str, file: Path, **options: Any) -> None:
    """Compare with timm's own feature network of the same state dict."""
    backbone = Backbone(name, weights=file, **options)
    expected = Backbone(name, pretrained=False)
    torch.manual_seed(1)
    whole = timm.create_model(name, pretrained=False, num_classes=7)
    state = {key.replace("_", "."): value for key, value in whole.state_dict().items()}
    names = expected.net.state_dict()
    expected.net.load_state_dict(
        {key: state[key.removeprefix("model.").replace("_", ".")] for key in names}
    )
    for ours, theirs in zip(list_features(backbone), list_features(expected), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("name", FAMILIES)
def test_state_dict_of_a_classifier_is_loaded(name, tmp_path, capsys):
    file = tmp_path / "weights.safetensors"
    save_file(make_state(name), file)
    assert_equal_features(name, file)
    printed = capsys.readouterr().out
    assert printed.startswith(f"{file}: ")
    assert "tensors loaded into the backbone; not used: " in printed


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.encoder.", "a.b.c."])
@pytest.mark.parametrize("wrapper", [(), ("state_dict",), ("teacher",), ("model", "state_dict")])
def test_wrappers_and_prefixes_are_removed(prefix, wrapper, tmp_path):
    content: Any = {prefix + key: value for key, value in make_state("test_resnet").items()}
    content |= {"head.extra": torch.zeros(2)}
    for key in reversed(wrapper):
        content = {"epoch": 3, key: content}
    torch.save(content, tmp_path / "weights.pth")
    assert_equal_features("test_resnet", tmp_path / "weights.pth")


@pytest.mark.parametrize("with_classifier", [True, False])
def test_order_replaces_other_names(with_classifier, tmp_path):
    ignored = (
        ("num_batches_tracked",)
        if with_classifier
        else ("num_batches_tracked", "fc.weight", "fc.bias")
    )
    state = make_state("test_resnet")
    values = [value for key, value in state.items() if not key.endswith(ignored)]
    torch.save({f"x{index}": value for index, value in enumerate(values)}, tmp_path / "w.pth")
    assert_equal_features("test_resnet", tmp_path / "w.pth", weights_match="order")
    with pytest.raises(ModelError, match=r"backbone: tensors: .* missing .*=order"):
        Backbone("test_resnet", weights=tmp_path / "w.pth")


def test_order_of_another_model_is_rejected(tmp_path):
    values = reversed(make_state("test_resnet").values())
    torch.save({f"x{index}": value for index, value in enumerate(values)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=r"in the order of the file, conv1\.0\.weight has"):
        Backbone("test_resnet", weights=tmp_path / "w.pth", weights_match="order")
    torch.save({"x": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="1 tensors, the backbone has"):
        Backbone("test_resnet", weights=tmp_path / "w.pth", weights_match="order")


def test_surplus_tensors_in_order_are_listed(tmp_path, capsys):
    values = [v for k, v in make_state("test_resnet").items() if "num_batches" not in k]
    state = {f"x{index}": value for index, value in enumerate([*values, torch.zeros(3)])}
    torch.save(state, tmp_path / "w.pth")
    Backbone("test_resnet", weights=tmp_path / "w.pth", weights_match="order")
    assert f"not used: x{len(values) - 2}" in capsys.readouterr().out


def test_weights_of_several_backbones_are_reported_once(tmp_path, capsys):
    save_file(make_state("test_resnet"), tmp_path / "w.safetensors")
    for _ in range(3):
        Backbone("test_resnet", weights=tmp_path / "w.safetensors")
    assert capsys.readouterr().out.count("tensors loaded") == 1


def test_original_names_of_swin_are_converted(tmp_path):
    """The published files have the downsampling at the end of a stage, timm at its start."""
    name, state = "swin_tiny_patch4_window7_224", make_state("swin_tiny_patch4_window7_224", 1000)
    original = {}
    for key, value in state.items():
        stage, _, rest = key.removeprefix("layers.").partition(".downsample.")
        moved = f"layers.{int(stage) - 1}.downsample.{rest}" if rest else key
        original[moved.replace("head.fc.", "head.")] = value
    torch.save({"model": original}, tmp_path / "w.pth")
    loaded = Backbone(name, weights=tmp_path / "w.pth").net.state_dict()
    assert torch.equal(
        loaded["layers_1.downsample.reduction.weight"],
        state["layers.1.downsample.reduction.weight"],
    )


def test_missing_and_mismatched_tensors_are_named(tmp_path):
    state = make_state("test_resnet")
    name = next(key for key in state if key.startswith("layer2") and key.endswith("conv1.weight"))
    torch.save({key: value for key, value in state.items() if key != name}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"tensors: 1 missing \('{name}'\)"):
        Backbone("test_resnet", weights=tmp_path / "w.pth")
    torch.save({**state, name: torch.zeros(1, 2)}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match=rf"1 of another shape \('{name}' is \(1, 2\), not "):
        Backbone("test_resnet", weights=tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.pth", None, "no such file"),
        ("photo.jpg", b"x", "not a weights file; file types: .safetensors"),
        ("broken.safetensors", b"x" * 100, "cannot be read as tensors"),
        ("broken.pth", b"x" * 100, "cannot be read as tensors"),
    ],
)
def test_wrong_file_is_one_line(name, content, message, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        Backbone("test_resnet", weights=tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_pickled_code_is_not_run(tmp_path):
    class Attack:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "canary",)

    torch.save({"state_dict": Attack()}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="cannot be read as tensors"):
        Backbone("test_resnet", weights=tmp_path / "w.pth")
    assert not (tmp_path / "canary").exists()
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(ModelError, match="contains no tensors"):
        Backbone("test_resnet", weights=tmp_path / "w.pth")


def test_hub_prefix_of_the_name_is_accepted():
    assert Backbone("timm/test_resnet", pretrained=False).feature_info == (
        Backbone("test_resnet", pretrained=False).feature_info
    )


def test_options_of_timm_are_passed_and_validated():
    backbone = Backbone("test_convnext", pretrained=False, options={"drop_path_rate": 0.5})
    assert any(type(module).__name__ == "DropPath" for module in backbone.modules())
    with pytest.raises(ModelError, match=r"backbone\.options\.drop_path.*did you mean"):
        Backbone("test_convnext", pretrained=False, options={"drop_pathrate": 0.5})
    with pytest.raises(ModelError, match=r"options\.img_size.*key of its own"):
        Backbone("test_vit", pretrained=False, options={"img_size": 64})


def test_experiment_with_weights_needs_the_file_only_to_train(tmp_path):
    save_file(make_state("test_resnet"), tmp_path / "w.safetensors")
    experiment = make_tiny_experiment(f"backbone.weights={tmp_path / 'w.safetensors'}")
    model = build_model(experiment, build_tasks(experiment))
    weight = model.state_dict()["decoder.backbone.net.conv1.0.weight"]
    assert torch.equal(weight, make_state("test_resnet")["conv1.0.weight"])
    (tmp_path / "w.safetensors").unlink()
    build_model(experiment, build_tasks(experiment), pretrained=False)
    with pytest.raises(ModelError, match="no such file"):
        build_model(experiment, build_tasks(experiment))


def test_baselines_of_other_weights_in_the_same_file_are_not_reused(tmp_path):
    file = tmp_path / "w.safetensors"
    experiment = make_tiny_experiment(
        f"backbone.weights={file}", "baselines=auto", "tasks=[depth]", "train.epochs=1"
    )
    for num_classes, name in ((7, "first"), (7, "again"), (9, "other")):
        save_file(make_state("test_resnet", num_classes), file)
        train_experiment(experiment, tmp_path / name, "cpu", max_steps=1)
    assert len(list((tmp_path / "baselines").iterdir())) == 2

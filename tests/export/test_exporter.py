"""Export to ONNX and torch.export: parity, dynamic axes, compressed weights and the report."""

from __future__ import annotations

import json
import math
import runpy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn
from torch.export import Dim

import densemtl
from densemtl.engine.weights_file import save_weights
from densemtl.errors import ModelError
from densemtl.export import onnx, parity, torch_export
from densemtl.export.exporter import export_model
from densemtl.export.wrapper import ExportWrapper
from densemtl.factory import build_model, build_tasks
from densemtl.layers.selective_scan_2d import SelectiveScan2d
from densemtl.types import RGBImage
from tests.helpers.experiments import make_tiny_experiment
from tests.helpers.swin import TinySwin

TOOL = Path(__file__).parents[2] / "tools" / "export.py"
pytest.importorskip("onnxruntime", reason='needs pip install "densemtl[export]"')
pytest.importorskip("onnxscript", reason='needs pip install "densemtl[export]"')


def make_images(count: int = 2) -> list[RGBImage]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (50, 70, 3), dtype=np.uint8) for _ in range(count)]


def make_network(names: list[str], decoder: str = "hard_sharing", **options: Any) -> ExportWrapper:
    torch.manual_seed(0)
    tasks = densemtl.create_tasks(names, data="nyud")
    model = densemtl.create_model(decoder, backbone="test_resnet", tasks=tasks)
    return ExportWrapper(model, tasks, **options).eval()


@pytest.fixture(scope="module")
def network() -> ExportWrapper:
    return make_network(["semseg", "depth", "normals", "edge"])


@pytest.fixture(scope="module")
def exported(
    network: ExportWrapper, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("export")
    weights = ["fp16", "bf16", "int8_dynamic", "int8_static"]
    return folder, export_model(network, (30, 40), make_images(), folder, "onnx", weights)


def test_onnx_file_accepts_uint8_images_of_other_batch_and_image_sizes(
    network: ExportWrapper, exported: tuple[Path, dict[str, Any]]
) -> None:
    session = onnx.OnnxSession(exported[0] / "network.onnx")
    image = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    outputs = dict(zip(network.output_names, session(image), strict=True))
    with torch.no_grad():
        final = network.model(image).logits
    expected = {task.name: task.decode(final[task.name]).numpy() for task in network.tasks}
    assert (outputs["semseg"] == expected["semseg"]).mean() > 0.999
    for name in ("depth", "normals", "edge"):
        np.testing.assert_allclose(outputs[name], expected[name], atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(outputs["normals"], axis=1), 1, atol=1e-4)


def test_report_contains_inputs_and_differences(exported: tuple[Path, dict[str, Any]]) -> None:
    folder, report = exported
    assert json.loads((folder / "report.json").read_text()) == report
    assert report["input"]["free"] == "batch and size"
    assert report["input"]["traced"] == [2, 3, 32, 64]
    assert report["compared_on"] == [[2, 3, 32, 64], [1, 3, 32, 64], [1, 3, 64, 128]]
    plain = report["files"]["network.onnx"]
    assert plain["megabytes"] == round((folder / "network.onnx").stat().st_size / 1e6, 3)
    assert plain["differences"]["depth"]["max"] < 1e-4
    assert plain["ms"] > 0


def test_smaller_weights_give_smaller_files_and_larger_differences(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    files = exported[1]["files"]
    size = {name: entry["megabytes"] for name, entry in files.items()}
    differences = {name: entry["differences"]["depth"]["mean"] for name, entry in files.items()}
    for kind in ("fp16", "bf16"):
        assert size[f"network.{kind}.onnx"] < 0.65 * size["network.onnx"]
    for kind in ("int8_dynamic", "int8_static"):
        assert size[f"network.{kind}.onnx"] < 0.45 * size["network.onnx"]
    order = ("network.onnx", "network.fp16.onnx", "network.bf16.onnx", "network.int8_dynamic.onnx")
    assert [differences[name] for name in order] == sorted(differences[name] for name in order)
    assert differences["network.int8_dynamic.onnx"] < 0.5


def test_quantized_normals_have_unit_length(
    exported: tuple[Path, dict[str, Any]],
) -> None:
    session = onnx.OnnxSession(exported[0] / "network.int8_static.onnx")
    normals = session(torch.zeros(1, 3, 32, 64, dtype=torch.uint8))[2]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)


def test_outputs_that_are_not_finite_raise_model_error() -> None:
    with pytest.raises(ModelError, match="not finite: depth"):
        parity.check_finite({"edge": {"max": 1.0}, "depth": {"max": math.nan}})


def test_tool_exports_a_run_to_torch_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = make_tiny_experiment(
        "decoder.name=pad_net", "backbone={name: test_vit, pretrained: false}"
    )
    tasks = build_tasks(experiment)
    model = build_model(experiment, tasks).eval()
    save_weights(tmp_path / "best.safetensors", model, experiment.to_yaml())
    main: Callable[[list[str]], None] = runpy.run_path(str(TOOL))["main"]
    main([str(tmp_path), "--format", "torch_export", "--normalized", "--logits", "--count", "2"])
    report = json.loads((tmp_path / "export" / "report.json").read_text())
    assert report["input"]["type"] == "float32"
    program = torch.export.load(tmp_path / "export" / "network.pt2").module()
    image = torch.randint(0, 256, (2, 3, *report["input"]["traced"][2:]), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(image).logits
        outputs = program(model.normalize(image))
    for task, output in zip(tasks, outputs, strict=True):
        torch.testing.assert_close(output, expected[task.name], rtol=1e-4, atol=1e-4)
    output = capsys.readouterr().out
    assert "network.pt2: " in output
    assert f"dynamic axes: {report['input']['free']};" in output


def test_swin_exports_with_dynamic_size(tmp_path: Path) -> None:
    torch.manual_seed(0)
    swin = TinySwin(SwinTransformer)
    traced = torch_export.trace(swin, torch.zeros(2, 3, 8, 12))  # type: ignore[arg-type]
    assert traced.dynamic_axes == "batch and size"
    onnx.write_onnx(traced, ["map"], tmp_path / "swin.onnx")
    session = onnx.OnnxSession(tmp_path / "swin.onnx")
    for sizes in ((2, 3, 8, 12), (3, 3, 26, 14), (1, 3, 60, 60), (1, 3, 2, 4)):
        image = torch.randn(sizes)
        with torch.no_grad():
            (expected,) = swin(image)
        np.testing.assert_allclose(session(image)[0], expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_selective_scan_is_one_loop_of_any_length(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scan = SelectiveScan2d(8, rank=2, states=4).eval()
    batch, rows, columns = (Dim(name, min=1) for name in ("batch", "rows", "columns"))
    shapes = ({0: batch, 2: rows, 3: columns}, None)
    program = torch.export.export(scan, (torch.randn(2, 8, 3, 5), None), dynamic_shapes=shapes)
    file = tmp_path / "scan.onnx"
    with torch.enable_grad():  # as in a program that exports
        onnx.write_onnx(torch_export.TracedGraph(program, "batch and size", {}), ["map"], file)
    feature = torch.randn(1, 8, 7, 4)
    (found,) = onnx.OnnxSession(file)(feature)
    np.testing.assert_allclose(found, scan(feature).numpy(), atol=1e-5)
    torch.export.save(program, tmp_path / "scan.pt2")
    loaded = torch.export.load(tmp_path / "scan.pt2").module()
    torch.testing.assert_close(loaded(feature, None), scan(feature))


def test_exported_dynamic_axes_accept_other_sizes() -> None:
    other = make_network(["semseg", "depth"], "mtan", postprocess=False)
    traced = torch_export.trace(other, torch.zeros(2, 3, 32, 64, dtype=torch.uint8))
    assert traced.dynamic_axes == "batch and size"
    image = torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(traced.program.module()(image), other(image))


class FixedSize(nn.Module):
    """Model for a fixed image size, and for a fixed batch size if it is given."""

    def __init__(self, batch: int | None, fails: bool = False) -> None:
        super().__init__()
        self.batch, self.fails, self.model = batch, fails, SimpleNamespace(size_divisor=8)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        if self.fails:
            raise ValueError("not\nthis one")
        if self.batch is not None:
            image = image.reshape(self.batch, 3, image.shape[2], image.shape[3])
        return (image.float().reshape(image.shape[0], 3, 8, 16) * 2,)


def test_static_axes_are_reported_with_their_reason() -> None:
    image = torch.zeros(2, 3, 8, 16)
    traced = torch_export.trace(FixedSize(None), image)  # type: ignore[arg-type]
    assert traced.dynamic_axes == "batch"
    assert set(traced.reasons) == {"batch and size"}
    traced = torch_export.trace(FixedSize(2), image)  # type: ignore[arg-type]
    assert traced.dynamic_axes == "nothing"
    assert set(traced.reasons) == {"batch and size", "batch"}
    with pytest.raises(ModelError, match=r"cannot be traced: .*not this one") as error:
        torch_export.trace(FixedSize(2, fails=True), image)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


class EndlessTracing(nn.Module):
    """Model whose tracing never ends if any side of the image is dynamic."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SimpleNamespace(size_divisor=8)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor]:
        while any(isinstance(side, torch.SymInt) for side in image.shape):
            pass
        return (image * 2,)


def test_tracing_stops_after_the_time_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_export, "TIME_LIMIT", 1.0)
    traced = torch_export.trace(EndlessTracing(), torch.zeros(2, 3, 8, 16))  # type: ignore[arg-type]
    assert traced.dynamic_axes == "nothing"
    reason = "ModelError: torch did not finish tracing within 1 s"
    assert traced.reasons == {"batch and size": reason, "batch": reason}


def test_too_small_image_raises_one_line_error(tmp_path: Path) -> None:
    network = make_network(["depth"])
    with pytest.raises(
        ModelError, match=r"network\.pt2: does not accept inputs of 32x32 .*export a larger size$"
    ):
        export_model(network, (32, 32), make_images(), tmp_path, "torch_export")
    assert not (tmp_path / "report.json").exists()


@pytest.mark.parametrize(
    ("dynamic_axes", "sizes"),
    [("nothing", []), ("batch", [(64, 96)]), ("batch and size", [(64, 96), (96, 160)])],
)
def test_other_sizes_match_the_dynamic_axes(
    dynamic_axes: str, sizes: list[tuple[int, int]]
) -> None:
    assert parity.choose_other_sizes((64, 96), 32, dynamic_axes) == sizes


def test_output_differences() -> None:
    ids = np.array([[1, 2], [3, 3]]), np.array([[1, 2], [3, 4]])
    assert parity._compare_outputs([ids, ids]) == {"differ": 0.25}
    numbers = np.float32([1, -4]), np.float32([1.5, -4])
    assert parity._compare_outputs([numbers]) == {"max": 0.5, "mean": 0.25, "largest": 4.0}


@pytest.mark.parametrize(
    ("values", "accepted"),
    [
        ({"max": 1e-4, "mean": 0, "largest": 0.1}, True),
        ({"max": 5e-3, "mean": 0, "largest": 10}, True),
        ({"max": 5e-3, "mean": 0, "largest": 1}, False),
        ({"max": float("nan"), "mean": 0, "largest": 1}, False),
        ({"differ": 1e-4}, True),
        ({"differ": 1e-2}, False),
    ],
)
def test_check_parity_accepts_only_rounding_differences(
    values: dict[str, float], accepted: bool
) -> None:
    if accepted:
        parity.check_parity({"depth": values})
        return
    with pytest.raises(ModelError, match="differs from the original: depth: "):
        parity.check_parity({"depth": values})


def test_different_export_raises_model_error_and_writes_no_report(
    network: ExportWrapper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WrongSession:
        def __init__(self, file: Path) -> None: ...

        def __call__(self, image: torch.Tensor) -> list[Any]:
            return [1 + output for output in parity.make_reference_fn(network)(image)]

    monkeypatch.setattr(onnx, "OnnxSession", WrongSession)
    monkeypatch.setattr(onnx, "write_onnx", lambda *_: None)
    monkeypatch.setattr(
        "densemtl.export.exporter.trace",
        lambda *_: torch_export.TracedGraph(None, "nothing", {}),  # type: ignore[arg-type]
    )
    with pytest.raises(ModelError, match="differs from the original: semseg: differ 1"):
        export_model(network, (32, 32), make_images(), tmp_path)
    assert not (tmp_path / "report.json").exists()


def test_missing_extra_raises_model_error() -> None:
    with pytest.raises(ModelError, match=r'onnxfoo is not installed: pip install "densemtl\[exp'):
        onnx.require_module("onnxfoo.quantization")

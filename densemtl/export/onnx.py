"""ONNX files: written, run, and their weights made smaller. Needs the extra `export`."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import ModelError, shorten_error
from densemtl.export.torch_export import TracedGraph
from densemtl.io.atomic import atomic_write

INPUT_NAME = "image"
MIN_WEIGHT_SIZE = 64
"""Weights of fewer numbers are not worth another type."""

QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations that 8 bits serve: those with weights. Norms and divisions of decoding need more."""

HALF_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


def require_module(module: str) -> Any:
    """A module of the extra.

    Raises:
        ModelError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ModelError(f'{package} is not installed: pip install "densemtl[export]"') from error


def write_onnx(traced: TracedGraph, output_names: Sequence[str], file: Path) -> None:
    """Write a graph as ONNX, its outputs under `output_names`.

    Raises:
        ModelError: it has no ONNX form, or the extra is missing.
    """
    for module in ("onnx", "onnxscript"):
        require_module(module)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:  # of torch's exporter, which raises many types
        raise ModelError(f"the network has no ONNX form: {shorten_error(error)}") from error
    assert exported is not None
    with atomic_write(file) as tmp_path:
        exported.save(str(tmp_path))


class OnnxSession:
    """An ONNX file, ready to run on one core of the CPU.

    Raises:
        ModelError: this runtime cannot run it.
    """

    def __init__(self, file: Path) -> None:
        runtime = require_module("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self._session = runtime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of the runtime, which has types of its own
            raise ModelError(
                f"{file}: onnxruntime cannot run it: {shorten_error(error)}"
            ) from error

    def __call__(self, image: Tensor) -> list[NDArray[Any]]:
        """An image as the network takes it -> its outputs in order."""
        outputs: list[NDArray[Any]] = self._session.run(None, {INPUT_NAME: image.numpy()})
        return outputs


def convert_weights_to_half(source: Path, weight_type: str, target: Path) -> None:
    """Keep weights in 16 bits; they are widened when the file is loaded, and computed with in 32.

    Args:
        source: an ONNX file of float32 weights.
        weight_type: "fp16" or "bf16".
        target: to write.
    """
    onnx = require_module("onnx")
    model = onnx.load(str(source))
    widenings = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_WEIGHT_SIZE:
            continue
        half = (
            torch.from_numpy(values.copy()).to(HALF_DTYPES[weight_type]).view(torch.int16).numpy()
        )
        name = f"{tensor.name}.{weight_type}"
        widenings.append(
            onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        number = onnx.TensorProto.FLOAT16 if weight_type == "fp16" else onnx.TensorProto.BFLOAT16
        small = onnx.TensorProto(
            name=name, data_type=number, dims=values.shape, raw_data=half.tobytes()
        )
        tensor.CopyFrom(small)
    for node in reversed(widenings):
        model.graph.node.insert(0, node)
    with atomic_write(target) as tmp_path:
        onnx.save(model, str(tmp_path))


def quantize(source: Path, weight_type: str, images: Sequence[Tensor], target: Path) -> None:
    """Weights of 8 bits, by onnxruntime.

    Args:
        source: an ONNX file of float32 weights.
        weight_type: "int8_dynamic": activations are scaled anew for each image; "int8_static": by
            the range that they have on `images`.
        images: as the network takes them.
        target: to write.

    Raises:
        ModelError: onnxruntime cannot quantise it.
    """
    tools = require_module("onnxruntime.quantization")
    try:
        with atomic_write(target) as tmp_path, _silence_logging():
            if weight_type == "int8_dynamic":
                tools.quantize_dynamic(source, tmp_path, weight_type=tools.QuantType.QUInt8)
            else:
                reader = _make_calibration_reader(tools, images)
                tools.quantize_static(
                    source, tmp_path, reader, op_types_to_quantize=list(QUANTIZED_OPS)
                )
    except Exception as error:  # of the runtime, which has types of its own
        raise ModelError(f"{source}: cannot be quantised: {shorten_error(error)}") from error


@contextmanager
def _silence_logging() -> Iterator[None]:
    """Without the runtime's advice to prepare graphs, which the exporter has done."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _make_calibration_reader(tools: Any, images: Sequence[Tensor]) -> Any:
    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self._left: Iterator[Tensor] = iter(images)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            image = next(self._left, None)
            return None if image is None else {INPUT_NAME: image.numpy()}

    return Reader()

"""Conversion to ONNX, execution of ONNX files, and compression of their weights.

Requires the extra `export`: `pip install "densemtl[export]"`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import ModelError, shorten_error
from densemtl.export.torch_export import TracedGraph, silence_logging
from densemtl.io.atomic import atomic_write

INPUT_NAME = "image"
MIN_WEIGHT_SIZE = 64
"""Minimum number of elements of weights that are stored in half precision."""

QUANTIZED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operations that are quantized: those with weights.

The norms and divisions of decoding need a higher precision.
"""

HALF_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}
"""{weight type: dtype}."""


def require_module(module: str) -> Any:
    """Import a module of the extra `export`.

    Args:
        module: full name of the module.

    Returns:
        The module.

    Raises:
        ModelError: if its package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ModelError(f'{package} is not installed: pip install "densemtl[export]"') from error


def write_onnx(traced: TracedGraph, output_names: Sequence[str], file: Path) -> None:
    """Convert a graph to ONNX and write it to a file.

    Args:
        traced: the graph.
        output_names: names of the outputs in the file.
        file: the file to write.

    Raises:
        ModelError: if the graph cannot be converted, or if the extra `export` is not installed.
    """
    for module in ("onnx", "onnxscript"):
        require_module(module)
    try:
        # Graphs with a loop cannot be converted while gradients are enabled.
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                traced.program,
                dynamo=True,
                input_names=[INPUT_NAME],
                output_names=list(output_names),
                verbose=False,
            )
    except Exception as error:  # torch's exporter raises exceptions of many types
        raise ModelError(
            f"the model cannot be converted to ONNX: {shorten_error(error)}"
        ) from error
    assert exported is not None
    with atomic_write(file) as tmp_path:
        exported.save(str(tmp_path))


class OnnxSession:
    """Session of onnxruntime that runs an ONNX file on one CPU core.

    Args:
        file: the ONNX file.

    Raises:
        ModelError: if onnxruntime cannot load the file, or is not installed.
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
        except Exception as error:  # onnxruntime raises exceptions of its own types
            raise ModelError(
                f"{file}: onnxruntime cannot run it: {shorten_error(error)}"
            ) from error

    def __call__(self, image: Tensor) -> list[NDArray[Any]]:
        """Run the model.

        Args:
            image: input of the model, a tensor on the CPU.

        Returns:
            The outputs in the order of `ExportWrapper.output_names`.
        """
        outputs: list[NDArray[Any]] = self._session.run(None, {INPUT_NAME: image.numpy()})
        return outputs


def convert_weights_to_half(source: Path, weight_type: str, target: Path) -> None:
    """Write a copy of an ONNX file with weights of 16 bits.

    Only the file is smaller: weights are cast to float32 when it is loaded, and all operations are
    computed in float32.

    Args:
        source: an ONNX file with float32 weights.
        weight_type: "fp16" or "bf16".
        target: the file to write.
    """
    onnx = require_module("onnx")
    model = onnx.load(str(source))
    casts = []
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < MIN_WEIGHT_SIZE:
            continue
        half = (
            torch.from_numpy(values.copy()).to(HALF_DTYPES[weight_type]).view(torch.int16).numpy()
        )
        name = f"{tensor.name}.{weight_type}"
        casts.append(
            onnx.helper.make_node("Cast", [name], [tensor.name], to=onnx.TensorProto.FLOAT)
        )
        data_type = onnx.TensorProto.FLOAT16 if weight_type == "fp16" else onnx.TensorProto.BFLOAT16
        half_tensor = onnx.TensorProto(
            name=name, data_type=data_type, dims=values.shape, raw_data=half.tobytes()
        )
        tensor.CopyFrom(half_tensor)
    for node in reversed(casts):
        model.graph.node.insert(0, node)
    with atomic_write(target) as tmp_path:
        onnx.save(model, str(tmp_path))


def quantize(source: Path, weight_type: str, images: Sequence[Tensor], target: Path) -> None:
    """Write a copy of an ONNX file with weights of 8 bits, quantized by onnxruntime.

    Args:
        source: an ONNX file with float32 weights.
        weight_type: "int8_dynamic" computes the range of activations for each image, "int8_static"
            uses the range of activations on `images`.
        images: inputs of the model for the calibration of "int8_static".
        target: the file to write.

    Raises:
        ModelError: if onnxruntime cannot quantize the file.
    """
    tools = require_module("onnxruntime.quantization")
    try:
        with atomic_write(target) as tmp_path, silence_logging():
            if weight_type == "int8_dynamic":
                tools.quantize_dynamic(source, tmp_path, weight_type=tools.QuantType.QUInt8)
            else:
                # Weights of 7 bits, since sums of 8-bit products overflow on CPUs without VNNI.
                tools.quantize_static(
                    source,
                    tmp_path,
                    _CalibrationReader(images),
                    op_types_to_quantize=list(QUANTIZED_OPS),
                    per_channel=True,
                    reduce_range=True,
                )
    except Exception as error:  # onnxruntime raises exceptions of its own types
        raise ModelError(f"{source}: cannot be quantized: {shorten_error(error)}") from error


class _CalibrationReader:
    """Iterator over images with the interface of onnxruntime's `CalibrationDataReader`."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        self._remaining: Iterator[Tensor] = iter(images)

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """Return the inputs of the next run, or None after the last image."""
        image = next(self._remaining, None)
        return None if image is None else {INPUT_NAME: image.numpy()}

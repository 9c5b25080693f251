"""Export of a trained model to a file, with a report on parity, size and speed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.adapters.merging import merge_adapters
from densemtl.errors import ModelError, shorten_error
from densemtl.export import onnx, parity
from densemtl.export.torch_export import TracedGraph, trace
from densemtl.export.wrapper import ExportWrapper
from densemtl.io.atomic import atomic_write, write_json
from densemtl.runtime.versions import get_versions
from densemtl.transforms.geometry import stretch_to_size
from densemtl.types import Image, Size

Format = Literal["onnx", "torch_export"]

WEIGHT_TYPES = ("fp16", "bf16", "int8_dynamic", "int8_static")
"""Weight types of smaller ONNX files."""

SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
FILE_STEM = "network"
REPORT_NAME = "report.json"


@dataclass(frozen=True)
class ParityInputs:
    """Inputs on which a model and its exported version are compared.

    Attributes:
        batch: two or more images (B, 3, H, W) of the exported size.
        other_inputs: inputs of other batch sizes and image sizes, if these are dynamic.
    """

    batch: Tensor
    other_inputs: list[Tensor]

    @property
    def single_image(self) -> Tensor:
        """First image (1, 3, H, W) of the batch, on which times are measured."""
        return self.batch[:1].contiguous()


def export_model(
    network: ExportWrapper,
    size: Size,
    images: Sequence[Image],
    folder: Path,
    file_format: Format = "onnx",
    weight_types: Sequence[str] = (),
) -> dict[str, Any]:
    """Export a model, compare it with the original, and write a report.

    The function writes `network.onnx` or `network.pt2`, ONNX files with smaller weights if they are
    requested, and `report.json`.

    Args:
        network: the model, on the CPU and in evaluation mode.
        size: (height, width) of the input in pixels; rounded up to multiples of `size_divisor`.
        images: at least two images (H, W, C) of any sizes, for the comparison.
        folder: folder of the files.
        file_format: "onnx" or "torch_export".
        weight_types: weight types of further ONNX files, out of `WEIGHT_TYPES`.

    Returns:
        The report.

    Raises:
        ModelError: if the model cannot be exported, or if the exported model differs from the
            original; then no report is written.
    """
    inputs, traced = _trace_with_inputs(network, images, size)
    file = folder / f"{FILE_STEM}{SUFFIXES[file_format]}"
    run = _write_and_load(traced, network.output_names, file, file_format)
    differences = parity.compute_differences(network, run, [inputs.batch, *inputs.other_inputs])
    parity.check_parity(differences)
    report = _describe_export(network, traced, inputs, file_format)
    files = {file.name: _describe_file(file, differences, run, inputs)}
    files |= dict(_write_compressed(network, file, kind, inputs) for kind in weight_types)
    report |= {"files": files, "versions": get_versions()}
    write_json(folder / REPORT_NAME, report)
    return report


def _trace_with_inputs(
    network: ExportWrapper, images: Sequence[Image], size: Size
) -> tuple[ParityInputs, TracedGraph]:
    """Trace a model, and return the inputs on which it can be compared and its graph.

    Adapters are merged into the weights of the graph; the comparison is with the model itself.
    """
    size = parity.round_up(size, network.model.size_divisor)
    batch = make_batch(network, images, size)
    traced = trace(merge_adapters(network), batch)
    others = parity.choose_other_sizes(size, network.model.size_divisor, traced.dynamic_axes)
    other_inputs = [make_batch(network, images[:1], other_size) for other_size in others]
    return ParityInputs(batch, other_inputs), traced


def _describe_export(
    network: ExportWrapper, traced: TracedGraph, inputs: ParityInputs, file_format: Format
) -> dict[str, Any]:
    """Return the part of the report that is the same for all files."""
    return {
        "format": file_format,
        "input": {
            "name": onnx.INPUT_NAME,
            "type": str(inputs.batch.dtype).removeprefix("torch."),
            "traced": list(inputs.batch.shape),
            "free": traced.dynamic_axes,
            "sides_divisible_by": network.model.size_divisor,
            "reasons": dict(traced.reasons),
        },
        "outputs": network.output_names,
        "decoded": network.postprocess,
        "compared_on": [list(image.shape) for image in (inputs.batch, *inputs.other_inputs)],
        "original_ms": parity.measure_ms(parity.make_reference_fn(network), inputs.single_image),
    }


def _write_and_load(
    traced: TracedGraph, names: Sequence[str], file: Path, file_format: Format
) -> parity.InferenceFn:
    """Write the file and load it again, so that what is compared is the file."""
    if file_format == "onnx":
        onnx.write_onnx(traced, names, file)
        return onnx.OnnxSession(file)
    with atomic_write(file) as tmp_path:
        torch.export.save(traced.program, tmp_path)
    module = torch.export.load(file).module()

    def run(image: Tensor) -> list[NDArray[Any]]:
        try:
            with torch.no_grad():
                return [output.numpy() for output in module(image)]
        except AssertionError as error:  # a map of one pixel or window was traced as a constant
            size = "x".join(map(str, image.shape[2:]))
            raise ModelError(
                f"{file}: does not accept inputs of {size} ({shorten_error(error)}); export a"
                " larger size"
            ) from error

    return run


def _write_compressed(
    network: ExportWrapper, file: Path, weight_type: str, inputs: ParityInputs
) -> tuple[str, dict[str, Any]]:
    """Write an ONNX file with smaller weights.

    Returns the name of the file and its entry in the report, which contains the reason if there is
    no such file.
    """
    target = file.with_name(f"{FILE_STEM}.{weight_type}.onnx")
    if weight_type in onnx.HALF_DTYPES:
        make = partial(onnx.convert_weights_to_half, file, weight_type, target)
    else:
        make = partial(onnx.quantize, file, weight_type, [inputs.batch], target)
    try:
        make()
        run = onnx.OnnxSession(target)
        differences = parity.compute_differences(network, run, [inputs.batch, *inputs.other_inputs])
        parity.check_finite(differences)
    except ModelError as error:
        target.unlink(missing_ok=True)
        return target.name, {"reason": str(error)}
    return target.name, _describe_file(target, differences, run, inputs)


def _describe_file(
    file: Path,
    differences: dict[str, dict[str, float]],
    run: parity.InferenceFn,
    inputs: ParityInputs,
) -> dict[str, Any]:
    """Return the entry of a file in the report."""
    return {
        "megabytes": round(file.stat().st_size / 1e6, 3),
        "ms": parity.measure_ms(run, inputs.single_image),
        "differences": differences,
    }


def make_batch(network: ExportWrapper, images: Sequence[Image], size: Size) -> Tensor:
    """Resize images to one size.

    Args:
        network: the model.
        images: images (H, W, C) of any sizes.
        size: (height, width) in pixels.

    Returns:
        The input of the model, shape (B, C, H, W).
    """
    resized = [
        stretch_to_size((image.shape[0], image.shape[1]), size)[0].apply_image(image)
        for image in images
    ]
    batch = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).contiguous()
    return network.prepare_input(batch)

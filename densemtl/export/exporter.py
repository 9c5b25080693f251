"""A trained network exported, held against the original on images, and reported on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from numpy.typing import NDArray
from torch import Tensor

from densemtl.errors import ModelError, shorten_error
from densemtl.export import onnx, parity
from densemtl.export.torch_export import TracedGraph, trace
from densemtl.export.wrapper import ExportWrapper
from densemtl.io.atomic import atomic_write, write_json
from densemtl.runtime.versions import get_versions
from densemtl.transforms.geometry import stretch_to_size
from densemtl.types import RGBImage, Size

Format = Literal["onnx", "torch_export"]
WEIGHT_TYPES = ("fp16", "bf16", "int8_dynamic", "int8_static")
SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2"}
FILE_STEM = "network"
REPORT_NAME = "report.json"


@dataclass(frozen=True)
class ParityInputs:
    """Images that a network and its export are run on.

    Attributes:
        batch: two images or more of the size that is exported.
        other_inputs: of other batches and sizes, as far as they are left free.
    """

    batch: Tensor
    other_inputs: list[Tensor]

    @property
    def single_image(self) -> Tensor:
        """A single image, to measure times on."""
        return self.batch[:1].contiguous()


def export_model(
    network: ExportWrapper,
    size: Size,
    images: Sequence[RGBImage],
    folder: Path,
    file_format: Format = "onnx",
    weight_types: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `network.onnx` or `network.pt2`, smaller versions if asked for, and `report.json`.

    Args:
        network: on the CPU, in evaluation mode.
        size: (height, width) of the input; rounded up to what the backbone divides.
        images: HxWx3 uint8 RGB, at least two, to compare on.
        folder: where the files go.
        file_format: of file.
        weight_types: smaller versions, of `WEIGHTS`; ONNX alone has them.

    Returns:
        The report.

    Raises:
        ModelError: it cannot be exported, or gives something else then; the report is not written.
    """
    size = parity.round_up(size, network.model.size_divisor)
    batch = _make_batch(network, images, size)
    traced = trace(network, batch)
    others = parity.choose_other_sizes(size, network.model.size_divisor, traced.dynamic_axes)
    probes = ParityInputs(
        batch, [_make_batch(network, images[:1], other_size) for other_size in others]
    )
    file = folder / f"{FILE_STEM}{SUFFIXES[file_format]}"
    run = _write_and_load(traced, network.output_names, file, file_format)
    differences = parity.compute_differences(network, run, [probes.batch, *probes.other_inputs])
    parity.check_parity(differences)
    report = {
        "format": file_format,
        "input": {
            "name": onnx.INPUT_NAME,
            "type": "uint8" if network.preprocess else "float32",
            "traced": list(batch.shape),
            "free": traced.dynamic_axes,
            "sides_divisible_by": network.model.size_divisor,
            "reasons": dict(traced.reasons),
        },
        "outputs": network.output_names,
        "decoded": network.postprocess,
        "compared_on": [list(image.shape) for image in (probes.batch, *probes.other_inputs)],
        "original_ms": parity.measure_ms(parity.make_reference_fn(network), probes.single_image),
        "files": {
            file.name: _describe_file(file, differences, run, probes),
            **{
                smaller: entry
                for weight_type in weight_types
                for smaller, entry in [_write_compressed(network, file, weight_type, probes)]
            },
        },
        "versions": get_versions(),
    }
    write_json(folder / REPORT_NAME, report)
    return report


def _write_and_load(
    traced: TracedGraph, names: Sequence[str], file: Path, file_format: Format
) -> parity.InferenceFn:
    """Write the file, and read it back as what is compared."""
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
        except AssertionError as error:  # of a map of one pixel or window, taken for a constant
            size = "x".join(map(str, image.shape[2:]))
            raise ModelError(
                f"{file}: takes no {size} ({shorten_error(error)}): export a larger size"
            ) from error

    return run


def _write_compressed(
    network: ExportWrapper, file: Path, weight_type: str, inputs: ParityInputs
) -> tuple[str, dict[str, Any]]:
    """(name, what there is to say) of a version with smaller weights, or why there is none."""
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
    return {
        "megabytes": round(file.stat().st_size / 1e6, 3),
        "ms": parity.measure_ms(run, inputs.single_image),
        "differences": differences,
    }


def _make_batch(network: ExportWrapper, images: Sequence[RGBImage], size: Size) -> Tensor:
    shown = [
        torch.from_numpy(
            stretch_to_size((image.shape[0], image.shape[1]), size)[0].apply_image(image)
        )
        for image in images
    ]
    return network.prepare_input(torch.stack(shown).permute(0, 3, 1, 2).contiguous())

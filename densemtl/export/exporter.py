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

from densemtl.io.atomic import replacing, write_json
from densemtl.transforms.geometry import resize_to
from densemtl.errors import ModelError
from densemtl.export import parity
from densemtl.export import onnx
from densemtl.export.wrapper import ExportNetwork
from densemtl.export.torch_export import Traced, trace
from densemtl.backbones.timm_factory import brief
from densemtl.results.results import versions
from densemtl.types import Size
from densemtl.visualization.panels import Picture

Format = Literal["onnx", "torch_export"]
WEIGHTS = ("fp16", "bf16", "int8_dynamic", "int8_static")
ENDINGS = {"onnx": ".onnx", "torch_export": ".pt2"}
NAME = "network"
REPORT = "report.json"


@dataclass(frozen=True)
class Probes:
    """Images that a network and its export are run on.

    Attributes:
        batch: two images or more of the size that is exported.
        others: of other batches and sizes, as far as they are left free.
    """

    batch: Tensor
    others: list[Tensor]

    @property
    def one(self) -> Tensor:
        """A single image, to measure times on."""
        return self.batch[:1].contiguous()


def export(
    network: ExportNetwork,
    size: Size,
    pictures: Sequence[Picture],
    folder: Path,
    kind: Format = "onnx",
    weights: Sequence[str] = (),
) -> dict[str, Any]:
    """Write `network.onnx` or `network.pt2`, smaller versions if asked for, and `report.json`.

    Args:
        network: on the CPU, in evaluation mode.
        size: (height, width) of the input; rounded up to what the backbone divides.
        pictures: HxWx3 uint8 RGB, at least two, to compare on.
        folder: where the files go.
        kind: of file.
        weights: smaller versions, of `WEIGHTS`; ONNX alone has them.

    Returns:
        The report.

    Raises:
        ModelError: it cannot be exported, or gives something else then; the report is not written.
    """
    size = parity.round_up(size, network.model.multiple)
    batch = _batch(network, pictures, size)
    traced = trace(network, batch)
    others = parity.other_sizes(size, network.model.multiple, traced.free)
    probes = Probes(batch, [_batch(network, pictures[:1], each) for each in others])
    file = folder / f"{NAME}{ENDINGS[kind]}"
    run = _write(traced, network.names, file, kind)
    found = parity.differences(network, run, [probes.batch, *probes.others])
    parity.check(found)
    report = {
        "format": kind,
        "input": {
            "name": onnx.INPUT,
            "type": "uint8" if network.preprocess else "float32",
            "traced": list(batch.shape),
            "free": traced.free,
            "sides_divisible_by": network.model.multiple,
            "reasons": dict(traced.reasons),
        },
        "outputs": network.names,
        "decoded": network.postprocess,
        "compared_on": [list(image.shape) for image in (probes.batch, *probes.others)],
        "original_ms": parity.milliseconds(parity.original(network), probes.one),
        "files": {
            file.name: _describe(file, found, run, probes),
            **{
                smaller: entry
                for each in weights
                for smaller, entry in [_smaller(network, file, each, probes)]
            },
        },
        "versions": versions(),
    }
    write_json(folder / REPORT, report)
    return report


def _write(traced: Traced, names: Sequence[str], file: Path, kind: Format) -> parity.Run:
    """Write the file, and read it back as what is compared."""
    if kind == "onnx":
        onnx.write(traced, names, file)
        return onnx.Session(file)
    with replacing(file) as draft:
        torch.export.save(traced.program, draft)
    module = torch.export.load(file).module()

    def run(image: Tensor) -> list[NDArray[Any]]:
        try:
            with torch.no_grad():
                return [output.numpy() for output in module(image)]
        except AssertionError as error:  # of a map of one pixel or window, taken for a constant
            size = "x".join(map(str, image.shape[2:]))
            raise ModelError(
                f"{file}: takes no {size} ({brief(error)}): export a larger size"
            ) from error

    return run


def _smaller(
    network: ExportNetwork, file: Path, weights: str, probes: Probes
) -> tuple[str, dict[str, Any]]:
    """(name, what there is to say) of a version with smaller weights, or why there is none."""
    target = file.with_name(f"{NAME}.{weights}.onnx")
    if weights in onnx.HALVES:
        make = partial(onnx.halve, file, weights, target)
    else:
        make = partial(onnx.quantise, file, weights, [probes.batch], target)
    try:
        make()
        run = onnx.Session(target)
        found = parity.differences(network, run, [probes.batch, *probes.others])
        parity.check_finite(found)
    except ModelError as error:
        target.unlink(missing_ok=True)
        return target.name, {"reason": str(error)}
    return target.name, _describe(target, found, run, probes)


def _describe(
    file: Path, found: dict[str, dict[str, float]], run: parity.Run, probes: Probes
) -> dict[str, Any]:
    return {
        "megabytes": round(file.stat().st_size / 1e6, 3),
        "ms": parity.milliseconds(run, probes.one),
        "differences": found,
    }


def _batch(network: ExportNetwork, pictures: Sequence[Picture], size: Size) -> Tensor:
    shown = [
        torch.from_numpy(resize_to((each.shape[0], each.shape[1]), size)[0].image(each))
        for each in pictures
    ]
    return network.prepare(torch.stack(shown).permute(0, 3, 1, 2).contiguous())

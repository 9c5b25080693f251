#!/usr/bin/env python
"""Export a trained network to ONNX or torch.export, and hold the file against the network.

FOLDER holds network.onnx or network.pt2, and report.json: what is free in the input, differences
on real images, sizes and times. Images must be resized to the input's size, or one that its
report allows, before they go in.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.engine.loading import TrainedModel
    from densemtl.types import RGBImage

FORMATS = ("onnx", "torch_export")
WEIGHT_FORMATS = ("fp16", "bf16", "int8_dynamic", "int8_static")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides_argument(parser)
    add("--format", choices=FORMATS, default="onnx")
    text = "where everything goes (default: RUN/export)"
    add("--output", type=Path, metavar="FOLDER", help=text)
    text = "of the input (default: as it was trained)"
    add("--size", type=int, nargs=2, metavar=("H", "W"), help=text)
    text = "image or folder to compare on (default: of the validation set)"
    add("--images", type=Path, metavar="PATH", help=text)
    add("--count", type=int, default=4, help="images to compare on (default: 4)")
    add("--normalised", action="store_true", help="take normalised floats instead of uint8 RGB")
    add("--logits", action="store_true", help="give logits instead of decoded maps")
    text = "smaller ONNX versions as well; int8_static is calibrated on the images"
    add("--weights", nargs="+", choices=WEIGHT_FORMATS, default=[], help=text)
    args = parser.parse_intermixed_args(argv)
    if args.weights and args.format != "onnx":
        parser.error("--weights: only ONNX files have smaller versions")
    if args.count < 2:
        parser.error("--count: give 2 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    """Export and report."""
    args = parse_args(argv)
    from densemtl.engine.loading import load_trained_model
    from densemtl.export.exporter import export_model
    from densemtl.export.wrapper import ExportWrapper

    loaded = load_trained_model(args.checkpoint, args.overrides, "cpu")
    network = ExportWrapper(
        loaded.model, loaded.tasks, preprocess=not args.normalised, postprocess=not args.logits
    )
    folder = args.output or loaded.file.parent / "export"
    size = args.size or loaded.experiment.input.size
    pictures = load_comparison_images(loaded, args.images, args.count)
    print_report(export_model(network.eval(), size, pictures, folder, args.format, args.weights))
    print(f"files and report.json: {folder}")


def load_comparison_images(loaded: TrainedModel, path: Path | None, count: int) -> list[RGBImage]:
    """Given images, repeated if need be, or evenly spaced ones of the validation set."""
    from densemtl.factory import build_dataset
    from densemtl.io.image_inputs import to_rgb_array
    from densemtl.io.media import find_images
    from densemtl.visualization.prediction_panels import pick_evenly_spaced

    if path is None:
        dataset = build_dataset(loaded.experiment, "val")
        found = [dataset[index].image for index in pick_evenly_spaced(len(dataset), count)]
    else:
        found = [to_rgb_array(file) for file in find_images(path)[:count]]
    return found if len(found) > 1 else 2 * found


def print_report(report: dict[str, Any]) -> None:
    """A line a file."""
    told = report["input"]
    print(f"free: {told['free']}; sides divisible by {told['sides_divisible_by']}")
    for what, reason in told["reasons"].items():
        print(f"not {what}: {reason}")
    print(f"original: {report['original_ms']} ms")
    for name, entry in report["files"].items():
        if "reason" in entry:
            print(f"{name}: {entry['reason']}")
            continue
        worst = ", ".join(
            f"{task} {values.get('max', values.get('differ')):.2g}"
            for task, values in entry["differences"].items()
        )
        print(f"{name}: {entry['megabytes']} MB, {entry['ms']} ms, largest differences: {worst}")


if __name__ == "__main__":
    cli.run_main(main)

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
    from densemtl.engine.loading import Loaded
    from densemtl.visualization.panels import Picture

FORMATS = ("onnx", "torch_export")
WEIGHTS = ("fp16", "bf16", "int8_dynamic", "int8_static")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    cli.add_overrides(parser)
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
    add("--weights", nargs="+", choices=WEIGHTS, default=[], help=text)
    args = parser.parse_intermixed_args(argv)
    if args.weights and args.format != "onnx":
        parser.error("--weights: only ONNX files have smaller versions")
    if args.count < 2:
        parser.error("--count: give 2 or more")
    return args


def main(argv: list[str] | None = None) -> None:
    """Export and report."""
    args = parse(argv)
    from densemtl.export.exporter import export
    from densemtl.export.wrapper import ExportNetwork
    from densemtl.engine.loading import load

    loaded = load(args.checkpoint, args.overrides, "cpu")
    network = ExportNetwork(
        loaded.model, loaded.tasks, preprocess=not args.normalised, postprocess=not args.logits
    )
    folder = args.output or loaded.file.parent / "export"
    size = args.size or loaded.experiment.input.size
    pictures = find_pictures(loaded, args.images, args.count)
    show(export(network.eval(), size, pictures, folder, args.format, args.weights))
    print(f"files and report.json: {folder}")


def find_pictures(loaded: Loaded, path: Path | None, count: int) -> list[Picture]:
    """Given images, repeated if need be, or evenly spaced ones of the validation set."""
    from densemtl.factory import build_dataset
    from densemtl.visualization.prediction_panels import spread_out
    from densemtl.io.image_inputs import to_picture
    from densemtl.io.media import find_images

    if path is None:
        dataset = build_dataset(loaded.experiment, "val")
        found = [dataset[index].image for index in spread_out(len(dataset), count)]
    else:
        found = [to_picture(file) for file in find_images(path)[:count]]
    return found if len(found) > 1 else 2 * found


def show(report: dict[str, Any]) -> None:
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
    cli.run(main)

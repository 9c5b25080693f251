"""Export a trained model to ONNX or torch.export, and compare the file with the model.

FOLDER will contain network.onnx or network.pt2, and report.json with the dynamic input axes, the
differences on real images, the file sizes and the run times. Images must be resized to the input
size, or to a size that the report allows, before inference.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from densemtl import cli
from densemtl.commands._checkpoint import (
    add_checkpoint_argument,
    get_output_folder,
    load_checkpoint,
)

if TYPE_CHECKING:
    from densemtl.engine.loading import TrainedModel
    from densemtl.types import Image

FORMATS = ("onnx", "torch_export")
WEIGHT_FORMATS = ("fp16", "bf16", "int8_dynamic", "int8_static")


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.

    Returns:
        The parsed arguments.
    """
    parser = cli.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_checkpoint_argument(parser)
    cli.add_overrides_argument(parser)
    cli.add_trust_argument(parser)
    add("--format", choices=FORMATS, default="onnx", help="file format (default: onnx)")
    text = "output folder (default: export in the run folder)"
    add("--output", type=Path, metavar="FOLDER", help=text)
    text = "size of the input (default: input.size of the run)"
    add("--size", type=int, nargs=2, metavar=("H", "W"), help=text)
    text = "image or folder for the comparison (default: validation split)"
    add("--images", type=Path, metavar="PATH", help=text)
    add("--count", type=int, default=4, help="number of images for the comparison (default: 4)")
    add("--normalized", action="store_true", help="expect normalized floats instead of uint8 RGB")
    cli.add_old_spelling(parser, "--normalised", "normalized", action="store_true")
    add("--logits", action="store_true", help="return logits instead of decoded maps")
    text = "write smaller ONNX files as well; int8_static is calibrated on the images"
    add("--weights", nargs="+", choices=WEIGHT_FORMATS, default=[], help=text)
    args = parser.parse_intermixed_args(argv)
    if args.weights and args.format != "onnx":
        parser.error("--weights: requires --format onnx")
    if args.count < 2:
        parser.error("--count: must be at least 2")
    return args


def main(argv: list[str] | None = None) -> None:
    """Export the model and print the report.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    cli.check_run_path(args.checkpoint)
    from densemtl.export.exporter import export_model
    from densemtl.export.wrapper import ExportWrapper

    loaded = load_checkpoint(args, "cpu")
    network = ExportWrapper(
        loaded.model, loaded.tasks, preprocess=not args.normalized, postprocess=not args.logits
    )
    folder = args.output or get_output_folder(loaded, "export")
    size = args.size or loaded.experiment.input.size
    pictures = load_comparison_images(loaded, args.images, args.count)
    print_report(export_model(network.eval(), size, pictures, folder, args.format, args.weights))
    print(f"files and report.json: {folder}")


def load_comparison_images(loaded: TrainedModel, path: Path | None, count: int) -> list[Image]:
    """Load at least two images for the comparison.

    Args:
        loaded: trained model.
        path: image or folder; None selects evenly spaced images of the validation split.
        count: maximum number of images.

    Returns:
        Images in the layout of `Sample`; a single image is returned twice.
    """
    from densemtl.factory import build_dataset
    from densemtl.io.image_inputs import to_channel_array, to_rgb_array
    from densemtl.io.media import find_images
    from densemtl.visualization.prediction_panels import pick_evenly_spaced

    if path is None:
        dataset = build_dataset(loaded.experiment, "val")
        images = [dataset[index].image for index in pick_evenly_spaced(len(dataset), count)]
    else:
        channels = loaded.model.num_channels
        images = [
            to_rgb_array(file) if channels == 3 else to_channel_array(file, channels)
            for file in find_images(path)[:count]
        ]
    return images if len(images) > 1 else 2 * images


def print_report(report: dict[str, Any]) -> None:
    """Print the report, one line per file.

    Args:
        report: report of `export_model`.
    """
    axes = report["input"]
    print(
        f"dynamic axes: {axes['free']}; height and width divisible by {axes['sides_divisible_by']}"
    )
    for axis, reason in axes["reasons"].items():
        print(f"fixed axis {axis}: {reason}")
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

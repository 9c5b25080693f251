#!/usr/bin/env python
"""Measure the frames per second of a trained model on one thread, in several forms.

Every form maps a uint8 image to decoded maps of the same size: the PyTorch model, the same with
batch normalization folded into convolutions, compiled by torch.compile, and ONNX files with float32
weights and with 8-bit weights and activations (static quantization). They run in turn, so that
other processes slow all of them equally. Differences are those of the predictions to the PyTorch
model, on the images. Sizes are rounded up to multiples that the model accepts.

    python benchmarks/inference.py densemtl/lite0-six --images FOLDER --size 240 320 --size 480 640
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from densemtl import cli
from densemtl.commands.export import load_comparison_images
from densemtl.engine.loading import TrainedModel, load_trained_model
from densemtl.export.exporter import export_model, make_batch
from densemtl.export.onnx import OnnxSession
from densemtl.export.parity import round_up
from densemtl.export.wrapper import ExportWrapper
from densemtl.models.batch_norm_folding import fuse_conv_bn
from densemtl.types import Image, Size

RunFn = Callable[[Tensor], object]
REFERENCE = "PyTorch"
CALIBRATION_IMAGES = 16


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="run folder, weights file or name of a shipped model")
    text = "folder of at least two images that calibrate the quantization and are predicted"
    add("--images", type=Path, required=True, metavar="FOLDER", help=text)
    text = "size of the images (default: 240 320 and 480 640)"
    add("--size", type=int, nargs=2, action="append", metavar=("H", "W"), help=text)
    add("--repeats", type=int, default=15, metavar="N", help="timed images (default: 15)")
    add("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Print a Markdown table per size."""
    args = parse_args(argv)
    torch.set_num_threads(1)
    loaded = load_trained_model(args.checkpoint, device="cpu")
    images = load_comparison_images(loaded, args.images, CALIBRATION_IMAGES)
    for requested in args.size or [(240, 320), (480, 640)]:
        size = round_up(requested, loaded.model.size_divisor)
        with TemporaryDirectory() as folder:
            forms, differences = make_forms(loaded, images, size, Path(folder), args.no_compile)
            image = make_batch(ExportWrapper(loaded.model, loaded.tasks), images[:1], size)
            print_table(size, measure(forms, image, args.repeats), differences)


def make_forms(
    loaded: TrainedModel, images: list[Image], size: Size, folder: Path, no_compile: bool
) -> tuple[dict[str, RunFn], dict[str, str]]:
    """Return {form: function} and {form: differences to the PyTorch model}."""
    network = ExportWrapper(loaded.model, loaded.tasks).eval()
    folded = ExportWrapper(fuse_conv_bn(loaded.model), loaded.tasks).eval()
    report = export_model(network, size, images, folder, weight_types=["int8_static"])
    forms: dict[str, RunFn] = {REFERENCE: network, "PyTorch, folded": folded}
    if not no_compile:
        forms["torch.compile, folded"] = torch.compile(folded)
    differences = {}
    for name, entry in report["files"].items():
        form = "onnxruntime, " + ("int8" if "int8" in name else "float32")
        if "reason" in entry:
            print(f"{form}: {entry['reason']}")
            continue
        forms[form] = OnnxSession(folder / name)
        differences[form] = describe_differences(entry["differences"])
    return forms, differences


def describe_differences(differences: dict[str, dict[str, float]]) -> str:
    """Return the differences of all tasks in one line."""
    return "; ".join(
        f"{task} " + ", ".join(f"{name} {value:.3g}" for name, value in values.items())
        for task, values in differences.items()
    )


@torch.inference_mode()
def measure(forms: dict[str, RunFn], image: Tensor, repeats: int) -> dict[str, float]:
    """Return the median CPU time of each form in seconds."""
    times: dict[str, list[float]] = {name: [] for name in forms}
    for index in range(repeats + 2):
        for name, run in forms.items():
            started = time.process_time()
            run(image)
            if index >= 2:  # the first runs compile and allocate
                times[name].append(time.process_time() - started)
    return {name: statistics.median(values) for name, values in times.items()}


def print_table(size: Size, seconds: dict[str, float], differences: dict[str, str]) -> None:
    """Print the results of a size."""
    height, width = size
    print(f"\n{height}x{width}\n\n| form | ms | frames/s | relative time |")
    print("| --- | ---: | ---: | ---: |")
    for name, value in seconds.items():
        ratio = value / seconds[REFERENCE]
        print(f"| {name} | {1e3 * value:.1f} | {1 / value:.1f} | {ratio:.2f} |")
    for name, text in differences.items():
        print(f"\n{name}: {text}")


if __name__ == "__main__":
    cli.run_main(main)

#!/usr/bin/env python
"""Look at predictions: coloured panels of images, videos, a camera, or of the dataset itself.

Inputs are images, folders, patterns such as 'photos/**/*.jpg' (in quotes), and videos. Each image
becomes a picture and each video a video of the image and its predictions side by side; Ctrl-C ends
a video early and keeps what was done so far. --web opens a page in the browser's reach instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.demo.point_cloud import PointCloudBuilder
    from densemtl.tasks.base import Task


def parse_args(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    text = "image, folder, pattern, video; key=value"
    add("inputs", nargs="*", metavar="input", help=text)
    text = "show this split (train or val) of the checkpoint's dataset beside its ground truth"
    add("--dataset", choices=("train", "val"), metavar="SPLIT", help=text)
    add("--count", type=int, default=8, help="images of the dataset (default: 8)")
    add("--webcam", type=int, metavar="N", help="film camera N, 0 is the first, until Ctrl-C")
    cli.add_device_argument(parser)
    add_output_arguments(parser)
    add_view_arguments(parser)
    add_web_arguments(parser)
    args = parser.parse_intermixed_args(argv)
    args.overrides = [text for text in args.inputs if "=" in text and not Path(text).exists()]
    args.inputs = [Path(text) for text in args.inputs if text not in args.overrides]
    if not args.inputs and not args.dataset and args.webcam is None and not args.web:
        parser.error("give an image, a folder or a video, --dataset val, --webcam 0 or --web")
    if args.web and (args.inputs or args.dataset or args.webcam is not None):
        parser.error("--web: takes no inputs; drop them on the page")
    if args.intrinsics and not args.points:
        parser.error("--intrinsics: only --points needs them")
    return args


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """What is written."""
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, default=Path("demo"), help="folder for the pictures (default: demo)")
    text = "lay predictions over the image: 0 shows it alone, 1, the default, the predictions"
    add("--overlay", type=parse_unit_interval, default=1.0, metavar="ALPHA", help=text)
    text = "write the maps as well: class ids as PNG, all else as .npy, and as 16-bit PNG depth in "
    add("--raw", action="store_true", help=f"{text}millimetres and normals")
    text = "write predicted depth as .ply too, coloured by 'image' or a task, such as 'normals'"
    add("--points", metavar="COLOUR", help=text)
    text = "focal lengths and centre in pixels for --points; without, a focal length of 0.81 image "
    text += "widths (63 degrees across) and the middle are assumed"
    names = ("FX", "FY", "CX", "CY")
    add("--intrinsics", type=float, nargs=4, metavar=names, help=text)


def add_view_arguments(parser: argparse.ArgumentParser) -> None:
    """How the network looks."""
    add = parser.add_argument_group("views").add_argument
    add("--flip", action="store_true", help="average with the mirrored image")
    text = "average over these sizes relative to the input (default: 1)"
    add("--scales", type=float, nargs="+", default=[1.0], metavar="S", help=text)
    text = "cut larger images into overlapping windows of this size at their own resolution"
    add("--tile", type=int, nargs=2, metavar=("H", "W"), help=text)


def add_web_arguments(parser: argparse.ArgumentParser) -> None:
    """The page."""
    add = parser.add_argument_group("page").add_argument
    text = "serve a page: drop an image, read classes and metres under the pointer"
    add("--web", action="store_true", help=f'{text}; needs pip install "densemtl[web]"')
    text = "who may reach it: 127.0.0.1, the default, this machine alone; 0.0.0.0 everyone"
    add("--host", default="127.0.0.1", help=text)
    add("--port", type=int, default=7860, help="default: 7860; 0 takes a free one")


def parse_unit_interval(text: str) -> float:
    """A number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> None:
    """Predict and write, or serve."""
    args = parse_args(argv)
    from densemtl.io.media import find_media

    images, videos = find_media(args.inputs)  # first: mistakes are told before torch is imported
    from densemtl.demo.renderer import DemoRenderer
    from densemtl.engine.loading import load_trained_model
    from densemtl.factory import build_dataset
    from densemtl.inference.predictor import Predictor

    loaded = load_trained_model(args.checkpoint, args.overrides, args.device)
    predictor = Predictor.from_trained(loaded, flip=args.flip, scales=args.scales, tile=args.tile)
    if args.web:
        from densemtl.demo.web.server import serve

        return serve(predictor, args.host, args.port)
    points = make_point_cloud_builder(predictor.tasks, args.points, args.intrinsics)
    show = DemoRenderer(predictor, args.output, args.overlay, args.raw, points)
    show.render_images(images)
    show.render_videos(videos)
    if args.dataset:
        show.render_dataset(build_dataset(loaded.experiment, args.dataset), args.count)
    if args.webcam is not None:
        show.render_webcam(args.webcam)
    print(f"pictures: {args.output}")
    return None


def make_point_cloud_builder(
    tasks: Sequence[Task], color_source: str | None, intrinsics: list[float] | None
) -> PointCloudBuilder | None:
    """None where no points are asked for; says what camera is assumed."""
    if color_source is None:
        return None
    from densemtl.demo.point_cloud import DEFAULT_FOCAL_LENGTH, PointCloudBuilder
    from densemtl.transforms.camera import Intrinsics

    if intrinsics is None:
        print(
            "points: no --intrinsics given; assuming a focal length of"
            f" {DEFAULT_FOCAL_LENGTH} image widths"
        )
    return PointCloudBuilder(tasks, color_source, Intrinsics(*intrinsics) if intrinsics else None)


if __name__ == "__main__":
    cli.run_main(main)

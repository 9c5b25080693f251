"""Show predictions for images, videos, a camera or a dataset.

The first argument is a run or the name of a shipped model; by default, it is the model that is
installed with densemtl. Inputs are images, videos, folders and quoted patterns such as
'photos/**/*.jpg'. For each image or video, a panel of the input and its predictions is written.
Ctrl-C stops a video early and saves the frames so far. --web starts a web page instead.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli
from densemtl.commands._checkpoint import add_checkpoint_argument, load_checkpoint
from densemtl.config.shipped_models import DEFAULT_MODEL, list_models
from densemtl.io.paths import parse_path

if TYPE_CHECKING:
    from densemtl.demo.point_cloud import PointCloudBuilder
    from densemtl.tasks.base import Task


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
    add_checkpoint_argument(parser, DEFAULT_MODEL)
    text = "image, video, folder or pattern; key=value overrides the configuration"
    add("inputs", nargs="*", metavar="input", help=text)
    text = "show images of a split (train or val) of the dataset, with ground truth"
    add("--dataset", choices=("train", "val"), metavar="SPLIT", help=text)
    add("--count", type=int, default=8, help="number of images of the dataset (default: 8)")
    add("--webcam", type=int, metavar="N", help="record camera N (0 is the first) until Ctrl-C")
    cli.add_trust_argument(parser)
    cli.add_device_argument(parser)
    add_output_arguments(parser)
    add_view_arguments(parser)
    add_web_arguments(parser)
    parser.override_prefix = ""
    args = parser.parse_intermixed_args(argv)
    split_positionals(args)
    if not args.inputs and not args.dataset and args.webcam is None and not args.web:
        parser.error("missing input: image, video, folder, --dataset val, --webcam 0 or --web")
    if args.web and (args.inputs or args.dataset or args.webcam is not None):
        parser.error("--web: accepts no inputs (drop images on the page instead)")
    if args.intrinsics and not args.points:
        parser.error("--intrinsics: requires --points")
    return args


def split_positionals(args: argparse.Namespace) -> None:
    """Separate the run, the inputs and the overrides, which are all positional arguments.

    Args:
        args: parsed command line, changed in place; `checkpoint` becomes None if the first argument
            is no run.
    """
    first = [] if args.checkpoint is None else [str(args.checkpoint)]
    texts = [*first, *args.inputs]
    args.overrides = [text for text in texts if "=" in text and not Path(text).exists()]
    args.inputs = [parse_path(text) for text in texts if text not in args.overrides]
    args.checkpoint = args.inputs.pop(0) if args.inputs and is_run(args.inputs[0]) else None


def is_run(path: Path) -> bool:
    """Return whether a path is that of a run, not of an image, video or folder to show.

    Args:
        path: first positional argument that is no override.

    Returns:
        False if the path is that of images or videos, and no run folder.
    """
    from densemtl.config.input_paths import BEST_NAME, CONFIG, WEIGHTS_NAME
    from densemtl.io.media import is_media

    return not is_media(path) or any(
        (path / name).exists() for name in (BEST_NAME, CONFIG, WEIGHTS_NAME)
    )


def select_default_model() -> Path:
    """Return the name of the model that is shown if no run is given, and print it.

    Returns:
        The name.

    Raises:
        CheckpointError: if this installation contains no such model.
    """
    from densemtl.errors import CheckpointError

    if DEFAULT_MODEL.as_posix() not in list_models():
        raise CheckpointError(
            "no run is given, and this installation contains no trained model; give a run first:"
            " densemtl demo RUN photo.jpg"
        )
    print(f"model: {DEFAULT_MODEL}, as no run is given")
    return DEFAULT_MODEL


def add_output_arguments(parser: cli.ArgumentParser) -> None:
    """Add options of the output.

    Args:
        parser: parser of this tool, changed in place.
    """
    add = parser.add_argument_group("output").add_argument
    add("--output", type=Path, default=Path("demo"), help="output folder (default: demo)")
    text = "opacity of predictions over the image, from 0 to 1 (default: 1)"
    add("--overlay", type=parse_unit_interval, default=1.0, metavar="ALPHA", help=text)
    text = "write the predicted maps as well: class ids as PNG, other maps as NPY; depth in "
    text += "millimeters and normals also as 16-bit PNG"
    add("--raw", action="store_true", help=text)
    text = "write point clouds (.ply) of depth, with the colors of 'image' or of a task"
    add("--points", metavar="COLOR", help=text)
    text = "focal lengths and principal point in pixels for --points (default: a focal length of "
    text += "0.81 image widths, i.e. a field of view of 63 degrees, and the image center)"
    names = ("FX", "FY", "CX", "CY")
    add("--intrinsics", type=float, nargs=4, metavar=names, help=text)


def add_view_arguments(parser: cli.ArgumentParser) -> None:
    """Add options of inference.

    Args:
        parser: parser of this tool, changed in place.
    """
    add = parser.add_argument_group("inference").add_argument
    add("--flip", action="store_true", help="average predictions over horizontal flips")
    text = "average predictions over these scales of the input (default: 1)"
    add("--scales", type=float, nargs="+", default=[1.0], metavar="S", help=text)
    text = "predict larger images at original resolution in overlapping tiles of this size"
    add("--tile", type=int, nargs=2, metavar=("H", "W"), help=text)


def add_web_arguments(parser: cli.ArgumentParser) -> None:
    """Add options of the web page.

    Args:
        parser: parser of this tool, changed in place.
    """
    add = parser.add_argument_group("web page").add_argument
    text = "serve a web page that predicts dropped images and shows values under the pointer"
    add("--web", action="store_true", help=f'{text}; needs pip install "densemtl[web]"')
    text = "address to listen on (default: 127.0.0.1, only this machine; 0.0.0.0: every machine)"
    add("--host", default="127.0.0.1", help=text)
    add(
        "--port",
        type=int,
        default=7860,
        help="port to listen on (default: 7860; 0 selects a free one)",
    )


def parse_unit_interval(text: str) -> float:
    """Parse a number from 0 to 1.

    Args:
        text: argument of the command line.

    Returns:
        The number.

    Raises:
        argparse.ArgumentTypeError: if the number is out of range.
    """
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def main(argv: list[str] | None = None) -> None:
    """Write predictions of the inputs, or serve the web page.

    Args:
        argv: arguments without the program name; None uses `sys.argv`.
    """
    args = parse_args(argv)
    args.checkpoint = args.checkpoint or select_default_model()
    cli.check_run_path(args.checkpoint)
    from densemtl.io.media import find_media

    images, videos = find_media(args.inputs)  # before the slow imports
    from densemtl.demo.renderer import DemoRenderer
    from densemtl.errors import ConfigError
    from densemtl.factory import build_dataset
    from densemtl.inference.predictor import Predictor

    loaded = load_checkpoint(args)
    # Faster with folded batch normalization, which changes predictions by rounding only.
    fuse_bn = bool(videos) or args.webcam is not None
    predictor = Predictor.from_trained(
        loaded, flip=args.flip, scales=args.scales, tile=args.tile, fuse_bn=fuse_bn
    )
    if not predictor.is_rgb:
        raise ConfigError(
            f"{args.checkpoint}: the model takes images of {predictor.num_channels} channels, and"
            " the demo shows RGB images only; pass arrays of shape"
            f" (H, W, {predictor.num_channels}) to densemtl.Predictor instead"
        )
    if args.web:
        from densemtl.demo.web.server import serve

        return serve(predictor, args.host, args.port)
    points = make_point_cloud_builder(predictor.tasks, args.points, args.intrinsics)
    renderer = DemoRenderer(predictor, args.output, args.overlay, args.raw, points)
    renderer.render_images(images)
    renderer.render_videos(videos)
    if args.dataset:
        renderer.render_dataset(build_dataset(loaded.experiment, args.dataset), args.count)
    if args.webcam is not None:
        renderer.render_webcam(args.webcam)
    print(f"output: {args.output}")
    return None


def make_point_cloud_builder(
    tasks: Sequence[Task], color_source: str | None, intrinsics: list[float] | None
) -> PointCloudBuilder | None:
    """Create the converter to point clouds.

    Args:
        tasks: tasks of the model.
        color_source: `image` or a task whose colors the points have; None for no point clouds.
        intrinsics: fx, fy, cx and cy in pixels; None assumes a default, which is printed.

    Returns:
        The converter, or None if `color_source` is None.

    Raises:
        ConfigError: if the tasks include no depth, or `color_source` is not one of them.
    """
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

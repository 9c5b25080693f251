#!/usr/bin/env python
"""Look at predictions: coloured panels of images, folders, videos, or of the dataset itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from densemtl import cli

if TYPE_CHECKING:
    from densemtl.data.base import DenseDataset
    from densemtl.inference.predictor import Predictor


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="a run's folder or a .safetensors file")
    parser.add_argument(
        "inputs", nargs="*", metavar="input", help="image, folder, video; key=value"
    )
    parser.add_argument(
        "--dataset",
        choices=("train", "val"),
        metavar="SPLIT",
        help="show this split (train or val) of the checkpoint's dataset beside its ground truth",
    )
    parser.add_argument("--count", type=int, default=8, help="images of the dataset (default: 8)")
    parser.add_argument("--output", type=Path, default=Path("demo"), help="folder for the pictures")
    parser.add_argument("--flip", action="store_true", help="average with the mirrored image")
    text = "average over these sizes relative to the input (default: 1)"
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0], metavar="S", help=text)
    text = "cut larger images into overlapping windows of this size at their own resolution"
    parser.add_argument("--tile", type=int, nargs=2, metavar=("H", "W"), help=text)
    parser.add_argument("--raw", action="store_true", help="write the predicted maps as well")
    cli.add_device(parser)
    args = parser.parse_intermixed_args(argv)
    args.overrides = [text for text in args.inputs if "=" in text and not Path(text).exists()]
    args.inputs = [Path(text) for text in args.inputs if text not in args.overrides]
    if not args.inputs and not args.dataset:
        parser.error("give an image, a folder or a video, or --dataset val")
    return args


def main(argv: list[str] | None = None) -> None:
    """Predict and write."""
    args = parse(argv)
    from densemtl.build import build_dataset
    from densemtl.inference.predictor import Predictor
    from densemtl.load import load
    from densemtl.media import find_images, is_video

    videos = [path for path in args.inputs if is_video(path)]
    images = [file for path in args.inputs if path not in videos for file in find_images(path)]
    loaded = load(args.checkpoint, args.overrides, args.device)
    predictor = Predictor.of(loaded, flip=args.flip, scales=args.scales, tile=args.tile)
    for file in images:
        show_image(predictor, file, args.output, args.raw)
    for file in videos:
        show_video(predictor, file, args.output)
    if args.dataset:
        dataset = build_dataset(loaded.experiment, args.dataset)
        show_dataset(predictor, dataset, args.count, args.output, args.raw)
    print(f"pictures: {args.output}")


def show_image(predictor: Predictor, file: Path, output: Path, raw: bool) -> None:
    """One image -> NAME.png, and its raw maps if asked for."""
    from densemtl.data.write import write_picture
    from densemtl.inference.images import to_picture
    from densemtl.media import write_maps
    from densemtl.visualize import panel

    image = to_picture(file)
    maps = predictor(image)
    write_picture(output / f"{file.stem}.png", panel(image, maps, None, predictor.tasks))
    if raw:
        write_maps(output / "maps", file.stem, maps)


def show_video(predictor: Predictor, file: Path, output: Path) -> None:
    """A video -> a video of panels."""
    from rich.progress import track

    from densemtl.media import Video, writing_video
    from densemtl.visualize import panel

    video = Video(file)
    with writing_video(output / f"{file.stem}.mp4", video.rate) as writer:
        for frame in track(video, file.name, total=video.length or None):
            writer.add(panel(frame, predictor(frame), None, predictor.tasks))


def show_dataset(
    predictor: Predictor, dataset: DenseDataset, count: int, output: Path, raw: bool
) -> None:
    """Evenly spaced samples of a split, predictions above ground truth."""
    from densemtl.data.write import write_picture
    from densemtl.engine.panels import spread_out
    from densemtl.media import write_maps
    from densemtl.visualize import panel

    for index in spread_out(len(dataset), count):
        sample = dataset[index]
        maps = predictor(sample.image)
        name = sample.id.replace("/", "_")
        picture = panel(sample.image, maps, sample.targets, predictor.tasks)
        write_picture(output / f"{name}.png", picture)
        if raw:
            write_maps(output / "maps", name, maps)


if __name__ == "__main__":
    cli.run(main)

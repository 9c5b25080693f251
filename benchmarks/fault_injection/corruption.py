"""Files with one bit flipped, or cut short: told, without effect, or unnoticed?

JPEG, NumPy's and MATLAB's files have no checksums, nor has a sample that is mapped into memory:
what cannot be noticed in them is counted apart, and is no loss of this project's making.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers import fake_datasets
import numpy as np
import torch
from tests.helpers.experiments import tiny
from rows import HARMLESS, TOLD, Row

from densemtl.factory import build_splits
from densemtl.config.experiment import CONFIG, read_saved
from densemtl.io import arrays
from densemtl.data.disk_cache import DiskCached
from densemtl.data.datasets.shards import Shards, write_shards
from densemtl.engine.checkpoint import load_weights, read_last
from densemtl.engine.run_log import read_log
from densemtl.errors import UserError
from densemtl.results.results import load_results
from densemtl.runs.train_run import run

UNCHECKED = "other values, which the format cannot show"
UNNOTICED = "other values, unnoticed"


@dataclass
class Case:
    """A file and how it is read.

    Attributes:
        fault: what it is.
        file: whole.
        read: gives what must be the same.
        checked: whether the format has checksums, of its own or of ours.
    """

    fault: str
    file: Path
    read: Callable[[], Any]
    checked: bool = True


def rows(scratch: Path, flips: int, rng: random.Random) -> Iterator[Row]:
    """A row a file: flips, and a quarter as many truncations."""
    for case in [*_of_a_run(scratch / "run"), *_of_data(scratch), *_of_shards(scratch / "shards")]:
        yield _row(case, flips, rng)


def _row(case: Case, flips: int, rng: random.Random) -> Row:
    good = (TOLD, HARMLESS) if case.checked else (TOLD, HARMLESS, UNCHECKED)
    row, data, whole = Row(f"bit flip or truncation: {case.fault}", good=good), *_read(case)
    for number in range(flips + flips // 4):
        place = rng.randrange(len(data) * 8)
        case.file.write_bytes(_flipped(data, place) if number < flips else data[: place // 8])
        row.add(*_end(case, whole))
    case.file.write_bytes(data)
    return row


def _read(case: Case) -> tuple[bytes, Any]:
    return case.file.read_bytes(), case.read()


def _flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place // 8] ^= 1 << place % 8
    return bytes(changed)


def _end(case: Case, whole: Any) -> tuple[str, str]:
    try:
        found = case.read()
    except UserError as error:
        lines = str(error).splitlines()
        named = all(str(case.file.parent) in line for line in lines)
        return (TOLD if named else "told without its name"), str(error)
    except Exception as error:
        return f"traceback ({type(error).__name__})", repr(error)
    if _equal(found, whole):
        return HARMLESS, ""
    return (UNNOTICED if case.checked else UNCHECKED), ""


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return bool(one == other)


def _of_a_run(folder: Path) -> Iterator[Case]:
    run(tiny("train.epochs=1"), folder, "cpu")
    best, last = folder / "best.safetensors", folder / "last"

    def weights() -> Any:
        found = load_weights(best)
        return found.tensors, found.config

    def state() -> Any:
        found = read_last(folder)
        return found and (found[0].tensors, found[0].config, found[1])

    yield Case("`best.safetensors`", best, weights)
    yield Case("`last/model.safetensors`", last / "model.safetensors", state)
    yield Case("`last/state.pt`", last / "state.pt", state)
    file, config, log = folder / "results.json", folder / CONFIG, folder / "log.jsonl"
    yield Case("`results.json`", file, lambda: load_results(file), checked=False)
    yield Case("`config.yaml`", config, lambda: read_saved(_text(config), config), checked=False)
    yield Case("`log.jsonl`", log, lambda: read_log(log), checked=False)


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _of_data(scratch: Path) -> Iterator[Case]:
    scene = fake_datasets.Scene(0, (48, 64))
    fake_datasets.picture(scratch / "image.png", scene.image)
    fake_datasets.picture(scratch / "image.jpg", scene.image)
    fake_datasets.picture(scratch / "label.png", scene.ids(41))
    fake_datasets.array(scratch / "label.npy", scene.depth)
    fake_datasets.matlab(scratch / "label.mat", depth=scene.depth)
    for name, what in (("image.png", "PNG image"), ("label.png", "PNG label")):
        yield Case(what, scratch / name, _reader(scratch / name))
    for name, what in (("image.jpg", "JPEG"), ("label.npy", ".npy"), ("label.mat", ".mat")):
        yield Case(what, scratch / name, _reader(scratch / name), checked=False)


def _reader(file: Path) -> Callable[[], Any]:
    return lambda: arrays.read_array(file)


def _of_shards(root: Path) -> Iterator[Case]:
    splits = build_splits(tiny("tasks=[semseg, depth]"))
    offers = {"semseg": {"class_names": ["a"]}, "depth": {}}
    write_shards([splits.train, splits.val], offers, root, 2, jpeg=False)

    def samples() -> Any:
        found = Shards("train", ["semseg", "depth"], root=str(root))
        return [_arrays(found, index) for index in range(len(found))]

    yield Case("`shards.json`", root / "shards.json", samples, checked=False)
    yield Case("a shard (.tar)", root / "train-000000.tar", samples, checked=False)
    cached = DiskCached(splits.val, root / "cache")
    cached[0]
    file = root / "cache" / "0000000.npy"
    yield Case("cached sample (.npy)", file, lambda: _arrays(cached, 0), checked=False)


def _arrays(dataset: Any, index: int) -> Any:
    sample = dataset[index]
    return sample.id, np.array(sample.image), {k: np.array(v) for k, v in sample.targets.items()}

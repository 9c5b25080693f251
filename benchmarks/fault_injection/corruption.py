"""Fault injection: bit flips and truncations of files, which must be reported or have no effect.

JPEG, NumPy and MATLAB files have no checksums, and neither have memory-mapped samples. Changes that
cannot be detected in these formats are counted separately and not as losses.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from result_table import NO_EFFECT, REPORTED, Row

from densemtl.config.experiment import parse_saved_experiment
from densemtl.config.input_paths import CONFIG
from densemtl.data.datasets.shards import ShardsDataset, write_shards
from densemtl.data.disk_cache import MemmapCacheDataset
from densemtl.engine.checkpoint import read_checkpoint
from densemtl.engine.run_log import read_log
from densemtl.engine.weights_file import load_weights
from densemtl.errors import UserError
from densemtl.factory import build_splits
from densemtl.io import arrays
from densemtl.results.results import load_results
from densemtl.runs.train_run import train_experiment
from tests.helpers import fake_datasets
from tests.helpers.experiments import make_tiny_experiment

UNCHECKED = "other values, undetectable in this format"
UNNOTICED = "other values, undetected"


@dataclass
class Case:
    """A file to damage, and how it is read.

    Attributes:
        fault: description of the file.
        file: the undamaged file.
        read: function whose result must not change.
        has_checksum: whether the file has checksums, by its format or added by densemtl.
    """

    fault: str
    file: Path
    read: Callable[[], Any]
    has_checksum: bool = True


def iter_rows(scratch: Path, flips: int, rng: random.Random) -> Iterator[Row]:
    """Yield one row per file: `flips` bit flips, and a quarter as many truncations."""
    for case in [
        *_iter_run_cases(scratch / "run"),
        *_iter_data_cases(scratch),
        *_iter_shard_cases(scratch / "shards"),
    ]:
        yield _try_case(case, flips, rng)


def _try_case(case: Case, flips: int, rng: random.Random) -> Row:
    acceptable = (REPORTED, NO_EFFECT) if case.has_checksum else (REPORTED, NO_EFFECT, UNCHECKED)
    row = Row(f"bit flip or truncation: {case.fault}", acceptable=acceptable)
    data, expected = case.file.read_bytes(), case.read()
    for number in range(flips + flips // 4):
        bit = rng.randrange(len(data) * 8)
        case.file.write_bytes(_flip_bit(data, bit) if number < flips else data[: bit // 8])
        row.add(*_classify(case, expected))
    case.file.write_bytes(data)
    return row


def _flip_bit(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def _classify(case: Case, expected: Any) -> tuple[str, str]:
    try:
        result = case.read()
    except UserError as error:
        lines = str(error).splitlines()
        named = all(str(case.file.parent) in line for line in lines)
        return (REPORTED if named else "a message without the file name"), str(error)
    except Exception as error:
        return f"traceback ({type(error).__name__})", repr(error)
    if _is_equal(result, expected):
        return NO_EFFECT, ""
    return (UNNOTICED if case.has_checksum else UNCHECKED), ""


def _is_equal(first: Any, second: Any) -> bool:
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            _is_equal(first[key], second[key]) for key in first
        )
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return len(first) == len(second) and all(map(_is_equal, first, second))
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return first.dtype == second.dtype and first.tobytes() == second.tobytes()
    return bool(first == second)


def _iter_run_cases(folder: Path) -> Iterator[Case]:
    train_experiment(make_tiny_experiment("train.epochs=1"), folder, "cpu")
    best, last = folder / "best.safetensors", folder / "last"

    def weights() -> Any:
        weights_file = load_weights(best)
        return weights_file.tensors, weights_file.config_yaml

    def state() -> Any:
        checkpoint = read_checkpoint(folder)
        if checkpoint is None:
            return None
        return checkpoint[0].tensors, checkpoint[0].config_yaml, checkpoint[1]

    yield Case("`best.safetensors`", best, weights)
    yield Case("`last/model.safetensors`", last / "model.safetensors", state)
    yield Case("`last/state.pt`", last / "state.pt", state)
    file, config, log = folder / "results.json", folder / CONFIG, folder / "log.jsonl"
    yield Case("`results.json`", file, lambda: load_results(file), has_checksum=False)
    yield Case(
        "`config.yaml`",
        config,
        lambda: parse_saved_experiment(_read_text(config), config),
        has_checksum=False,
    )
    yield Case("`log.jsonl`", log, lambda: read_log(log), has_checksum=False)


def _read_text(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")


def _iter_data_cases(scratch: Path) -> Iterator[Case]:
    scene = fake_datasets.FakeScene(0, (48, 64))
    fake_datasets.write_image(scratch / "image.png", scene.image)
    fake_datasets.write_image(scratch / "image.jpg", scene.image)
    fake_datasets.write_image(scratch / "label.png", scene.make_ids(41))
    fake_datasets.write_array(scratch / "label.npy", scene.depth)
    fake_datasets.write_mat(scratch / "label.mat", depth=scene.depth)
    for name, title in (("image.png", "PNG image"), ("label.png", "PNG label")):
        yield Case(title, scratch / name, _make_reader(scratch / name))
    for name, title in (("image.jpg", "JPEG"), ("label.npy", ".npy"), ("label.mat", ".mat")):
        yield Case(title, scratch / name, _make_reader(scratch / name), has_checksum=False)


def _make_reader(file: Path) -> Callable[[], Any]:
    return lambda: arrays.read_array(file)


def _iter_shard_cases(root: Path) -> Iterator[Case]:
    splits = build_splits(make_tiny_experiment("tasks=[semseg, depth]"))
    task_options = {"semseg": {"class_names": ["a"]}, "depth": {}}
    write_shards([splits.train, splits.val], task_options, root, 2, jpeg=False)

    def samples() -> Any:
        dataset = ShardsDataset("train", ["semseg", "depth"], root=str(root))
        return [_read_arrays(dataset, index) for index in range(len(dataset))]

    yield Case("`shards.json`", root / "shards.json", samples, has_checksum=False)
    yield Case("a shard (.tar)", root / "train-000000.tar", samples, has_checksum=False)
    cached = MemmapCacheDataset(splits.val, root / "cache")
    cached[0]
    file = root / "cache" / "0000000.npy"
    yield Case("cached sample (.npy)", file, lambda: _read_arrays(cached, 0), has_checksum=False)


def _read_arrays(dataset: Any, index: int) -> Any:
    sample = dataset[index]
    return sample.id, np.array(sample.image), {k: np.array(v) for k, v in sample.targets.items()}

"""Random configurations, pictures and label maps: understood, or told in one line each."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterator
from contextlib import redirect_stdout
from itertools import product
from pathlib import Path
from typing import Any

import cv2
from tests.helpers import random_configs
from tests.helpers import random_runs
import numpy as np
from tests.helpers.experiments import write_tiny
from hypothesis import HealthCheck, given, seed, settings
from rows import TOLD, Row

from densemtl.config.experiment import Experiment
from densemtl.io import images
from densemtl.data.datasets.folder_labels import STORAGE, LabelMaps
from densemtl.errors import DataError

ACCEPTED, IN_LINES = "accepted, and read back the same", "told in lines that say where"
STEPPED, IN_LINE = "built, trained a step and validated", "told in one line each"
DECODED, IN_RANGE = "decoded", "read, all in range or void"
TYPES = (
    *("uint8", "int16", "uint16", "int64", "float16", "float32", "float64", "bool", "complex64"),
)
SHAPES = (
    *((6, 8), (6, 8, 1), (1, 6, 8), (6, 8, 3), (3, 6, 8), (6, 8, 4)),
    *((0, 8), (48,), (), (2, 2, 2, 2, 2)),
)
LIMITS = (1.0, 10.0, 300.0, 1e9)


def rows(scratch: Path, configs: int, rng: random.Random) -> Iterator[Row]:
    """As many pictures and label maps as configurations, and a third as many steps."""
    yield _configurations(scratch / "a.yaml", configs, rng)
    yield _runs(write_tiny(scratch), configs // 3, rng)
    yield _pictures(configs, rng)
    yield _labels(scratch / "label.npy", configs, rng)


def _configurations(file: Path, count: int, rng: random.Random) -> Row:
    row = Row("random configuration files and overrides", good=(ACCEPTED, IN_LINES))

    @seed(rng.randrange(2**31))
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(random_configs.texts(), random_configs.overrides)
    def attempt(text: str, overrides: list[str]) -> None:
        row.add(_configured(file, text, overrides), f"{overrides}\n{text}")

    attempt()
    return row


def _configured(file: Path, text: str, overrides: list[str]) -> str:
    try:
        found = random_configs.outcome(file, text, overrides)
        if isinstance(found, Experiment):
            return ACCEPTED if random_configs.comes_back(found, file) else "read back differently"
        return IN_LINES if random_configs.is_told_well(found, file) else "told badly"
    except Exception as error:
        return f"traceback ({type(error).__name__})"


def _runs(file: Path, count: int, rng: random.Random) -> Row:
    """Options of every component, far out of range too, as the training tool takes a step."""
    row = Row("random options of tiny networks, tasks, data and training", good=(STEPPED, IN_LINE))

    @seed(rng.randrange(2**31))
    @settings(
        max_examples=count, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(random_runs.runs())
    def attempt(overrides: list[str]) -> None:
        row.add(_stepped(file, overrides), "\n".join(overrides))

    with redirect_stdout(io.StringIO()):
        attempt()
    return row


def _stepped(file: Path, overrides: list[str]) -> str:
    try:
        code, said = random_runs.attempt(overrides, file)
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if code == 0:
        return STEPPED
    return IN_LINE if random_runs.is_told_well(said) else "told badly"


def _pictures(count: int, rng: random.Random) -> Row:
    """Random bytes behind the beginnings of real pictures, and headers of any size."""
    row = Row("random bytes and sizes behind JPEG and PNG headers", good=(DECODED, TOLD))
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3)).astype(np.uint8)
    whole = [cv2.imencode(kind, noise)[1].tobytes() for kind in (".png", ".jpg")]
    ends = (b"IEND\xae\x42\x60\x82", b"\xff\xda\xff\xd9", b"")
    for _ in range(count):
        start = rng.choice(whole)
        data = start[: rng.choice((2, 4, 8, 33, 160, 400))] + rng.randbytes(rng.randint(0, 300))
        data = rng.choice((data + rng.choice(ends), _sized(start, rng)))
        row.add(_decoded(data), data.hex())
    return row


def _sized(whole: bytes, rng: random.Random) -> bytes:
    """A picture that claims another size."""
    data, most = bytearray(whole), 2 ** rng.randint(1, 31)
    if whole.startswith(b"\x89PNG"):
        data[16:24] = struct.pack(">II", rng.randrange(most), rng.randrange(most))
    else:
        place = whole.index(b"\xff\xc0") + 5
        most = min(most, 2**16)
        data[place : place + 4] = struct.pack(">HH", rng.randrange(most), rng.randrange(most))
    return bytes(data)


def _decoded(data: bytes) -> str:
    try:
        found = images.decode(data, cv2.IMREAD_UNCHANGED, "a.png")
    except DataError as error:
        return TOLD if _names(error, "a.png") else "told badly"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    return DECODED if found.nbytes <= 6 * images.MAX_PIXELS else "too large"


def _names(error: Exception, name: str) -> bool:
    return str(error).startswith(f"{name}: ") and "\n" not in str(error)


def _labels(file: Path, count: int, rng: random.Random) -> Row:
    """Arrays of every type and shape, with values far out of range, read as every kind of label."""
    row = Row("label maps of random types, shapes and values", good=(IN_RANGE, TOLD))
    ways = list(product(sorted(set(STORAGE.values())), TYPES, SHAPES, LIMITS))
    values = np.random.default_rng(rng.randrange(2**31))
    for number in range(count):
        stored, kind, shape, limit = rng.choice(ways)
        maps = LabelMaps(files=".", stored=stored, class_names=["a", "b", "c"], void=(7,))
        array = values.normal(0, limit, shape) + (limit if number % 2 else 0)
        array = np.where(values.random(shape) < 0.02, rng.choice((np.nan, np.inf, 1)), array)
        with np.errstate(all="ignore"):
            np.save(file, array.astype(kind))
        row.add(_read(maps, stored, file), f"{stored} {kind} {shape} {limit}")
    return row


def _read(maps: LabelMaps, stored: Any, file: Path) -> str:
    try:
        found = maps.reader("task")(file)
    except DataError as error:
        return TOLD if _names(error, str(file)) else f"told badly: {error}"
    except Exception as error:
        return f"traceback ({type(error).__name__})"
    if stored in ("classes", "binary") and found.dtype == np.uint8:
        good = bool(np.isin(found, (0, 1, 2, 255)).all())
    else:
        good = found.dtype == np.float32 and not bool(np.isinf(found).any())
    return IN_RANGE if good else "out of range"
